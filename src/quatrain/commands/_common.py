"""What every verb shares: its common options, how it prints, and how it shows progress."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="On an error, show the whole traceback.")]
Model = Annotated[
    Path, typer.Argument(metavar="MODEL.PTE", help="A program that ExecuTorch can load.")
]


def print_json(value: Any) -> None:
    """Print `value` as JSON, alone on standard output, for a machine to read."""
    print(json.dumps(value, indent=2, default=str))


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
