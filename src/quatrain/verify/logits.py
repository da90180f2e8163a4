"""The logits of a program or a checkpoint after each of some tokens."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from quatrain.arithmetic import VULKAN_ARITHMETIC, Arithmetic
from quatrain.atomic_files import whole_file
from quatrain.checkpoint.open import is_program
from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.runtime.generate import check_prompt
from quatrain.stages import Stages
from quatrain.verify.evaluated_models import open_evaluated_model
from quatrain.verify.windows import window_logits


def model_logits(
    model: Path | str,
    tokens: Sequence[int],
    scheme: Scheme | None = None,
    device: str = "auto",
    stages: Stages | None = None,
    arithmetic: Arithmetic = VULKAN_ARITHMETIC,
) -> np.ndarray:
    """The logits of `model` after each of `tokens`, float32 [T, vocab_size].

    Many tokens are computed at a time where the model takes as many.

    Args:
        model: A program's path, or that of an int4 checkpoint, which runs eagerly.
        tokens: Token ids, one or more.
        scheme: For a checkpoint; None is 8da4w.
        device: For a program, as in `load_runner`.
        stages: Hears of each stage.
        arithmetic: How 8da4w linears are computed.

    Raises:
        InputError: Where `scheme` or `device` is for the other kind of model, a token is not in
            the vocabulary, or there are more than the context holds.
    """
    model, stages = Path(model), stages or Stages()
    if not is_program(model) and device != "auto":
        raise InputError(f"--device {device} is for programs; a checkpoint runs eagerly")
    if scheme and is_program(model):
        raise InputError(
            f"--scheme {scheme} is for checkpoints; {model} is a program and has its own, which "
            "`quatrain retarget` changes"
        )
    evaluated = open_evaluated_model(
        model, device, None, scheme or Scheme.DYNAMIC_INT8, "logits", stages, arithmetic
    )
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


def write_logits(logits: np.ndarray, path: Path) -> None:
    """Write `logits` as a .npy file, whole or not at all."""
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, logits)
