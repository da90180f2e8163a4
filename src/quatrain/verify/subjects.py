"""What can be evaluated: a program on some runtime, or a checkpoint run eagerly."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quatrain.backbone.build import Scheme, load_eager
from quatrain.checkpoint import open_checkpoint
from quatrain.errors import InputError
from quatrain.program import open_program
from quatrain.program.positions import give_every_position
from quatrain.runtime.generate import Runner
from quatrain.runtime.load import is_vulkan, load_runner, require_tokens_to_logits
from quatrain.verify.windows import WINDOW, EveryPosition


@dataclass(frozen=True)
class Subject:
    """A model that was looked at but not loaded yet.

    `beside`: a path beside which its tokenizer lies. `context` and `window`: tokens that its
    cache holds and that one call may have. `load` gives a runner and its runtime's name.
    """

    path: Path
    beside: Path
    vocab_size: int
    context: int
    window: int
    load: Callable[[], tuple[Runner, str]]


def is_checkpoint(path: Path) -> bool:
    """Whether `path` names a checkpoint rather than a program."""
    return path.is_dir() or path.suffix in (".safetensors", ".pth", ".pt")


def open_subject(path: Path, device: str, emulate: str | None, scheme: Scheme) -> Subject:
    """`device` and `emulate` are for a program, `scheme` is for a checkpoint.

    Raises `InputError` where `path` is neither, or does not go from tokens to logits.
    """
    if is_checkpoint(path):
        return _checkpoint(path, scheme)
    return _program(path, device, emulate)


def _checkpoint(path: Path, scheme: Scheme) -> Subject:
    config = open_checkpoint(path).config
    folder = path if path.is_dir() else path.parent
    return Subject(
        path=path,
        beside=folder / "checkpoint",
        vocab_size=config.vocab_size,
        context=config.max_seq_len,
        window=WINDOW,
        load=lambda: (EveryPosition(load_eager(path, scheme)), f"eager, {scheme}"),
    )


def _program(path: Path, device: str, emulate: str | None) -> Subject:
    program = open_program(path)
    metadata = program.metadata
    require_tokens_to_logits(path, metadata, "evaluate")
    missing = {"get_vocab_size", "get_max_context_len"} - metadata.keys()
    if missing:
        raise InputError(f"{path}: lacks the constant method {min(missing)}, needed to evaluate it")
    if is_vulkan(program):
        give_every_position(program.vulkan)
    longest = int(metadata.get("get_max_seq_len", 1)) if metadata.get("enable_dynamic_shape") else 1
    return Subject(
        path=path,
        beside=path,
        vocab_size=int(metadata["get_vocab_size"]),
        context=int(metadata["get_max_context_len"]),
        window=min(WINDOW, longest),
        load=lambda: load_runner(program, device, emulate),
    )
