"""Measures how well models predict a text, and their divergence from the first model."""

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from quatrain.arithmetic import VULKAN_ARITHMETIC, XNNPACK_ARITHMETIC, Arithmetic
from quatrain.checkpoint.files.hub import local_path
from quatrain.checkpoint.open import is_program
from quatrain.errors import InputError, require_at_least, require_several
from quatrain.int4 import Scheme
from quatrain.program import open_program
from quatrain.runtime.calls.token_ids import check_token_ids
from quatrain.runtime.defects import emulated_defect
from quatrain.runtime.load import is_vulkan
from quatrain.stages import freed_memory_kept
from quatrain.targets.as_on import arithmetic_as_on
from quatrain.verify.evaluate.divergence import FirstModel
from quatrain.verify.evaluate.evaluated_models import (
    EvaluatedModel,
    is_float,
    open_any_evaluated_model,
)
from quatrain.verify.evaluate.evaluation import Evaluation
from quatrain.verify.evaluate.evaluation_log import evaluation_log
from quatrain.verify.evaluate.measure import Progress, cut_text, measure_both_regimes

DEFAULT_TEXT = Path(__file__).with_name("evaluate.txt")
_CONTEXT = 512  # tokens read from an empty context on, where all models have room for them


def evaluate_models(
    models: Sequence[Path | str],
    text: str,
    tokens: int = 512,
    device: str = "auto",
    emulate: str | None = None,
    scheme: Scheme | None = None,
    progress: Progress = lambda model, done, total: None,
    as_on: str | None = None,
    tokenizer: Path | str | None = None,
    stride: int | None = None,
    resume: Path | str | None = None,
) -> list[Evaluation]:
    """Measure how well programs, int4 checkpoints and floating-point models predict a text, and
    their divergence from the first one.

    The text is read in chunks of 512 tokens, or as many as all contexts can hold, each with an
    empty context. The token that begins a text is put before each chunk, and all tokens of a chunk
    except the first are predicted. An 8da4w model for Vulkan is measured twice, in prefill and in
    decode; each is compared with the same of the first model, if that has both.

    Args:
        models: Paths of programs, of int4 checkpoints (run eagerly), and of floating-point models
            (computed layer by layer).
        text: The text to predict.
        tokens: How many of its tokens to read, from the beginning; 2 or more.
        device: For programs, as in `load_runner`.
        emulate: For programs, as in `load_runner`.
        scheme: For checkpoints; None means 8da4w.
        progress: Called with a model's path, the number of tokens done, and the number of all
            tokens.
        as_on: GPU[@RELEASE] whose 8da4w arithmetic is used; None means a GPU with integer dot
            products.
        tokenizer: A tokenizer.json; None means the first model's.
        stride: Let chunks overlap: each begins this many tokens after the one before, and only
            tokens that no earlier chunk predicted are counted, so that all but the first chunk have
            more context. None means no overlap.
        resume: A folder that keeps progress until all is done, so that another call can continue.
            It needs 4 bytes for each vocabulary entry and token of the text. None keeps nothing.

    Returns:
        One evaluation for each model, in their order.

    Raises:
        InputError: `models` is not a list or is empty, a model, its tokenizer, the text or a number
            cannot be used, vocabularies differ, or `resume` contains something else.
    """
    require_several("models", models)
    if not models:
        raise InputError("models is empty, expected one path or more")
    require_at_least(2, "tokens", tokens)
    paths = [Path(model) for model in models]
    _require_what_options_are_for(paths, device, emulate, scheme, as_on)
    arithmetic = _arithmetic(paths) if as_on is None else arithmetic_as_on(as_on)
    chosen = scheme or Scheme.DYNAMIC_INT8
    alone = not any(map(is_program, paths))  # no program's rounding to have
    evaluated = [
        open_any_evaluated_model(
            path, device, emulate, chosen, "evaluate", arithmetic, side_by_side=alone
        )
        for path in paths
    ]
    _require_one_vocabulary(evaluated)
    loaded = evaluated[0].read_tokenizer(tokenizer)
    ids = loaded.encode(text)[:tokens]
    check_token_ids(ids, evaluated[0].vocab_size, loaded.model.id_to_token)
    context = min(_CONTEXT, *(one.context for one in evaluated))
    read = cut_text(loaded, ids, context, stride)
    said = [read.chunks, device, emulate, chosen, arithmetic.name, as_on]
    key = _key(paths, said)
    with freed_memory_kept(), evaluation_log(Path(resume) if resume else None, key) as log:
        first = FirstModel(evaluated, read.counted(), log)
        return [
            measure_both_regimes(f"{index}", model, read, first, log, progress)
            for index, model in enumerate(evaluated)
        ]


def _require_what_options_are_for(
    paths: Sequence[Path],
    device: str,
    emulate: str | None,
    scheme: Scheme | None,
    as_on: str | None,
) -> None:
    emulated_defect(emulate)
    if scheme is not None and scheme not in tuple(Scheme):
        raise InputError(f"scheme is {scheme!r}, expected {' or '.join(Scheme)}")
    for option, given in (("--device", device != "auto" and device), ("--emulate", emulate)):
        if given and not any(map(is_program, paths)):
            raise InputError(
                f"{option} {given} is for programs, and none is given; leave it out, or name one"
            )
    if scheme and all(is_program(path) or is_float(path) for path in paths):
        raise InputError(
            "--scheme is for checkpoints, and none is given; a program has its own, which "
            "`quatrain retarget` changes"
        )
    eager_int8 = scheme != Scheme.WEIGHT_ONLY and not all(map(is_float, paths))
    if as_on is not None and not (eager_int8 or any(map(is_program, paths))):
        raise InputError(
            f"--as-on {as_on} is for programs, and checkpoints in 8da4w, but none is given; other "
            "models are computed in the same way everywhere, so leave it out"
        )


def _arithmetic(paths: Sequence[Path]) -> Arithmetic:
    """What checkpoints are computed in: as the programs beside them; Vulkan's if there are several
    kinds, or none."""
    programs = [open_program(path) for path in paths if is_program(path)]
    return (
        XNNPACK_ARITHMETIC if programs and not any(map(is_vulkan, programs)) else VULKAN_ARITHMETIC
    )


def _require_one_vocabulary(evaluated: Sequence[EvaluatedModel]) -> None:
    first = evaluated[0]
    for other in evaluated[1:]:
        if other.vocab_size != first.vocab_size:
            raise InputError(
                f"{other.path}: has a vocabulary of {other.vocab_size} tokens, {first.path} of "
                f"{first.vocab_size}; only models of one vocabulary can be compared"
            )


def _key(paths: Sequence[Path], said: list[Any]) -> str:
    """A key of everything that determines the figures: models by their files' names, sizes and
    times."""
    files = [file for path in paths for file in _files(local_path(path))]
    stamps = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = json.dumps([version("quatrain"), [str(path) for path in paths], stamps, said])
    return hashlib.sha256(key.encode()).hexdigest()


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
