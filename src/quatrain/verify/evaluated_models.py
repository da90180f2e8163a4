"""What can be evaluated: a program on some runtime, or a checkpoint run eagerly."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quatrain.checkpoint import open_checkpoint
from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.program import open_program
from quatrain.program.edit.all_position_logits import give_all_position_logits
from quatrain.runtime.generate import NamedRunner
from quatrain.runtime.load import is_vulkan, load_runner, require_tokens_to_logits
from quatrain.stages import Stages
from quatrain.verify.eager import load_eager
from quatrain.verify.windows import WINDOW, EveryPosition

_PROGRAM = b"ET12"  # at byte 4 of every .pte file


@dataclass(frozen=True)
class EvaluatedModel:
    """A model that was looked at but not loaded yet.

    `beside`: a path beside which its tokenizer lies. `context` and `window`: tokens that its
    cache holds and that one call may have. `load` gives a runner.
    """

    path: Path
    beside: Path
    vocab_size: int
    context: int
    window: int
    load: Callable[[], NamedRunner]


def is_checkpoint(path: Path) -> bool:
    """Whether `path` is for `open_checkpoint` rather than for `open_program`, by its content.

    What only calls itself .pte is for the latter, which says what is wrong with it.
    """
    try:
        with path.open("rb") as file:
            return file.read(8)[4:] != _PROGRAM and path.suffix != ".pte"
    except OSError:  # a folder, hf://owner/name, or nothing
        return path.is_dir() or path.suffix != ".pte"


def open_evaluated_model(
    path: Path, device: str, emulate: str | None, scheme: Scheme, verb: str, stages: Stages
) -> EvaluatedModel:
    """`device` and `emulate` are for a program, `scheme` is for a checkpoint.

    Raises `InputError` where `path` is neither, or does not go from tokens to logits, which `verb`
    needs.
    """
    if is_checkpoint(path):
        return _checkpoint(path, scheme, verb)
    return _program(path, device, emulate, verb, stages)


def _checkpoint(path: Path, scheme: Scheme, verb: str) -> EvaluatedModel:
    opened = open_checkpoint(path)
    config, source = opened.config, opened.source
    if not (config.apply_embedding and config.apply_output):
        part = "output" if config.apply_embedding else "embedding"
        raise InputError(
            f"{path}: has no {part} layer (apply_{part} is false); {verb} takes models from "
            "tokens to logits (others run from Python, quatrain.backbone)"
        )
    return EvaluatedModel(
        path=path,
        beside=source / "model.safetensors" if source.is_dir() else source,
        vocab_size=config.vocab_size,
        context=config.max_seq_len,
        window=WINDOW,
        load=lambda: EveryPosition(load_eager(path, scheme), f"eager, {scheme}"),
    )


def _program(
    path: Path, device: str, emulate: str | None, verb: str, stages: Stages
) -> EvaluatedModel:
    program = open_program(path)
    metadata = program.metadata
    require_tokens_to_logits(path, metadata, verb)
    missing = {"get_vocab_size", "get_max_context_len"} - metadata.keys()
    if missing:
        raise InputError(f"{path}: lacks the constant method {min(missing)}, which {verb} needs")
    if is_vulkan(program):
        give_all_position_logits(program.vulkan)
    longest = int(metadata.get("get_max_seq_len", 1)) if metadata.get("enable_dynamic_shape") else 1
    return EvaluatedModel(
        path=path,
        beside=path,
        vocab_size=int(metadata["get_vocab_size"]),
        context=int(metadata["get_max_context_len"]),
        window=min(WINDOW, longest),
        load=lambda: load_runner(program, device, emulate, stages),
    )
