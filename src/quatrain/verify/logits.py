"""Computes the logits of a program or a checkpoint after each of some tokens."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quatrain.atomic_files import whole_file
from quatrain.checkpoint.open import is_program
from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.runtime.generation.generate import check_prompt
from quatrain.stages import Stages
from quatrain.targets.as_on import arithmetic_as_on
from quatrain.verify.evaluate.evaluated_models import EvaluatedModel, open_evaluated_model
from quatrain.verify.evaluate.windows import window_logits


@dataclass(frozen=True)
class LogitsReport:
    """What `write_logits` wrote to `output`: float32 of `shape` [T, vocab_size], whose largest in
    each row are `most_likely_next`."""

    output: Path
    shape: tuple[int, ...]
    most_likely_next: list[int]

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for JSON."""
        return asdict(self)


def write_logits(
    model: Path | str,
    tokens: Sequence[int],
    output: Path | str,
    scheme: Scheme | None = None,
    device: str = "auto",
    as_on: str | None = None,
    stages: Stages | None = None,
) -> LogitsReport:
    """Write the logits of `model` after each of `tokens`, float32 [T, vocab_size], as .npy.

    Many tokens are computed at a time where the model takes as many.

    Args:
        model: A program's path, or that of an int4 checkpoint, which runs eagerly.
        tokens: Token ids, one or more.
        output: The file to write, whole or not at all.
        scheme: For a checkpoint; None is 8da4w.
        device: For a program, as in `load_runner`.
        as_on: GPU[@RELEASE] as which 8da4w is computed; None is any with integer dot products.
        stages: Receives the progress of each stage.

    Raises:
        InputError: If `scheme`, `device` or `as_on` is for another kind of model, a token is not in
            the vocabulary, or there are more than the context holds.
    """
    model, output, stages = Path(model), Path(output), stages or Stages()
    arithmetic = arithmetic_as_on(as_on)
    _check_kind(model, scheme, device, as_on)
    scheme = scheme or Scheme.DYNAMIC_INT8
    evaluated = open_evaluated_model(model, device, None, scheme, "logits", arithmetic)
    logits = _logits(evaluated, tokens, stages)
    with whole_file(output) as temporary, temporary.open("wb") as file:
        np.save(file, logits)
    return LogitsReport(output, logits.shape, logits.argmax(-1).tolist())


def _logits(evaluated: EvaluatedModel, tokens: Sequence[int], stages: Stages) -> np.ndarray:
    wrong = [token for token in tokens if not 0 <= token < evaluated.vocab_size]
    if wrong:
        largest = evaluated.vocab_size - 1
        raise InputError(f"--tokens: {wrong[0]} is not a token; ids go from 0 to {largest}")
    check_prompt(tokens, evaluated.context)
    with stages("load the model"):
        runner = evaluated.load()
    found: list[torch.Tensor] = []
    with stages("compute the logits") as advance:
        for rows in window_logits(runner, tokens, evaluated.window):
            found.append(rows)
            advance(sum(map(len, found)) / len(tokens))
    return torch.cat(found).numpy()


def _check_kind(model: Path, scheme: Scheme | None, device: str, as_on: str | None) -> None:
    """Refuse what is for the other kind of model."""
    if not is_program(model) and device != "auto":
        raise InputError(f"--device {device} is for programs; a checkpoint runs eagerly")
    if scheme and is_program(model):
        raise InputError(
            f"--scheme {scheme} is for checkpoints; {model} is a program and has its own, which "
            "`quatrain retarget` changes"
        )
    if as_on is not None and scheme == Scheme.WEIGHT_ONLY:
        raise InputError(
            f"--as-on {as_on}: a checkpoint that runs as weight-only is computed alike everywhere; "
            "leave it out"
        )
