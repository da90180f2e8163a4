"""`quatrain logits`: the numbers behind the text, for comparison."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quatrain.commands._common import (
    Debug,
    Device,
    Json,
    check_output,
    print_json,
    shown_stages,
)
from quatrain.errors import InputError
from quatrain.int4 import Scheme

if TYPE_CHECKING:
    import numpy as np


def logits(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="A program, or a checkpoint for the eager model."),
    ],
    tokens: Annotated[str, typer.Option(metavar="1,2,3", help="Token ids, comma-separated.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.NPY")],
    scheme: Annotated[
        Scheme | None, typer.Option(help="For a checkpoint: how it runs; default 8da4w.")
    ] = None,
    device: Device = "auto",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the logits after each token: float32 [T, vocab_size], one row per position.

    Example: `quatrain logits smollm2.pte --tokens 1,2,3 -o out.npy`
    """
    import numpy as np

    from quatrain.atomic_files import whole_file

    ids = _token_ids(tokens)
    check_output(output, "-o")
    rows = _logits(model, ids, scheme, device)
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


def _logits(model: Path, ids: list[int], scheme: Scheme | None, device: str) -> "np.ndarray":
    """float32 [T, vocab_size], a block of tokens at a time where the model takes blocks."""
    import torch

    from quatrain.runtime.generate import check_prompt
    from quatrain.verify.evaluated_models import is_checkpoint, open_evaluated_model
    from quatrain.verify.windows import window_logits

    if is_checkpoint(model) and device != "auto":
        raise InputError(f"--device {device} is for programs; a checkpoint runs eagerly")
    if scheme and not is_checkpoint(model):
        raise InputError(
            f"--scheme {scheme} is for checkpoints; {model} is a program and has its own, which "
            "`quatrain retarget` changes"
        )
    stages = shown_stages()
    evaluated = open_evaluated_model(
        model, device, None, scheme or Scheme.DYNAMIC_INT8, "logits", stages
    )
    wrong = [token for token in ids if not 0 <= token < evaluated.vocab_size]
    if wrong:
        largest = evaluated.vocab_size - 1
        raise InputError(f"--tokens: {wrong[0]} is not a token; ids go from 0 to {largest}")
    check_prompt(ids, evaluated.context)
    with stages("load the model"):
        runner = evaluated.load()
    pieces: list[torch.Tensor] = []
    with stages("compute the logits") as advance:
        for rows in window_logits(runner, ids, evaluated.window):
            pieces.append(rows)
            advance(sum(map(len, pieces)) / len(ids))
    return torch.cat(pieces).numpy()
