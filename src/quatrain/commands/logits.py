"""`quatrain logits`: the numbers behind the text, for comparison."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quatrain.commands._common import Debug, Device, Json, print_json
from quatrain.errors import InputError

if TYPE_CHECKING:
    from quatrain.runtime.generate import Runner


class Scheme(StrEnum):
    dynamic = "8da4w"
    weight_only = "weight-only"


def logits(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="A program, or a checkpoint for the eager model."),
    ],
    tokens: Annotated[str, typer.Option(metavar="1,2,3", help="Token ids, comma-separated.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.NPY")],
    scheme: Annotated[Scheme, typer.Option(help="For a checkpoint: the scheme.")] = Scheme.dynamic,
    device: Device = "auto",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the logits after each token: float32 [T, vocab_size], one row per position.

    Example: `quatrain logits smollm2.pte --tokens 1,2,3 -o out.npy`
    """
    import numpy as np

    from quatrain.files import whole_file
    from quatrain.runtime.generate import step_logits

    ids = _token_ids(tokens)
    runner, context, vocab_size = _open(model, scheme.value, device)
    wrong = [token for token in ids if not 0 <= token < vocab_size]
    if wrong:
        raise InputError(f"--tokens: {wrong[0]} is not a token; ids go from 0 to {vocab_size - 1}")
    rows = step_logits(runner, ids, context).numpy()
    with whole_file(output) as temporary, temporary.open("wb") as file:
        np.save(file, rows)
    if json:
        best = rows.argmax(-1).tolist()
        print_json({"output": output, "shape": list(rows.shape), "most_likely_next": best})
    else:
        print(f"{output}: float32 {list(rows.shape)}")


def _token_ids(tokens: str) -> list[int]:
    try:
        return [int(token) for token in tokens.split(",")]
    except ValueError:
        raise InputError(f"--tokens is {tokens!r}, expected ids such as 1,2,3") from None


def _open(model: Path, scheme: str, device: str) -> "tuple[Runner, int, int]":
    """(runner, context, vocabulary size) of a program or a checkpoint."""
    if model.is_dir() or model.suffix in (".safetensors", ".pth", ".pt"):
        from quatrain.backbone.build import load_eager

        if device != "auto":
            raise InputError(f"--device {device} is for programs; a checkpoint runs eagerly")
        backbone = load_eager(model, "weight-only" if scheme == "weight-only" else "8da4w")
        return backbone, backbone.config.max_seq_len, backbone.config.vocab_size
    from quatrain.runtime.load import load_runner

    runner, _ = load_runner(model, device)
    context = int(runner.metadata.get("get_max_context_len", 1 << 30))
    return runner, context, int(runner.metadata.get("get_vocab_size", 1 << 30))
