"""What every verb shares: its common options, how it prints, and how it shows progress."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from quatrain.errors import InputError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="On an error, show the whole traceback.")]
Model = Annotated[
    Path, typer.Argument(metavar="MODEL.PTE", help="A program that ExecuTorch can load.")
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, gpu, reference or executorch.")]
Emulate = Annotated[
    str | None,
    typer.Option(metavar="HAZARD", help="Compute what a known defect computes (see doctor)."),
]


def print_json(value: Any) -> None:
    """Print `value` as JSON, alone on standard output, for a machine to read.

    Numbers that are not finite, which JSON has no word for, become null.
    """
    print(json.dumps(_finite(value), indent=2, default=str))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_text(path: Path) -> str:
    """The text of a UTF-8 file; `InputError` where it cannot be read as such."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text: {error}") from error


def stage_listener() -> Callable[[str, float | None], None]:
    """A listener for `quatrain.stages.Stages`: a line per stage on standard error.

    On a terminal the running stage is shown as it starts and its time is filled in.
    """
    terminal = sys.stderr.isatty()

    def listen(name: str, seconds: float | None) -> None:
        if seconds is None:
            if terminal:
                print(f"  {name} ...", end="\r", file=sys.stderr, flush=True)
        else:
            print(f"  {name:<34}{seconds:8.1f} s", file=sys.stderr, flush=True)

    return listen


def human_bytes(count: int) -> str:
    """`count` bytes as text in decimal units: 93_500_000 is '93.5 MB'."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.1f} {unit}" if unit != "B" else f"{count} B"
        size /= 1000
    return f"{size:.1f} GB"
