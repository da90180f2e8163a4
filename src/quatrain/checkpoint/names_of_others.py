"""Tensors under the names of another program than the file of parameters beside them is for."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from quatrain.errors import InputError


@dataclass(frozen=True)
class Namer:
    """Whose names tensors have that `parameters` is for. `own`: what one of them has in it.
    `others`: what names by other programs have in them, whose those are, and what makes a model
    that is read."""

    name: str
    parameters: str
    own: tuple[str, ...]
    others: tuple[tuple[str, str, str], ...]


_GGUF = ("blk.", "llama.cpp's", "give the GGUF file that they are from")
_ANOTHER = ("transformer.", "another program's", "convert them with the program that wrote them")
TRANSFORMERS = Namer(
    "transformers",
    "config.json",
    ("embed_tokens", "self_attn"),
    (
        (".attention.wq.", "Meta's", "put its params.json in place of config.json"),
        (".attention.wqkv.", "gpt-fast's", "give the model that it was converted from"),
        (".sa_norm.", "torchtune's", "save the model with torchtune's FullModelHFCheckpointer"),
        _GGUF,
        _ANOTHER,
    ),
)
META = Namer(
    "Meta",
    "params.json",
    (".attention.", ".feed_forward."),
    (
        (".self_attn.", "transformers'", "put the model's config.json in place of params.json"),
        (".sa_norm.", "torchtune's", "save the model with torchtune's FullModelMetaCheckpointer"),
        _GGUF,
        _ANOTHER,
    ),
)


def require_names_of(namer: Namer, stored: Iterable[str], source: Path | str) -> None:
    """Raise `InputError`, naming `source`, for a model that goes by the names of another."""
    names = sorted(stored)
    if any(mark in name for name in names for mark in namer.own):
        return
    for mark, whose, remedy in namer.others:
        example = next((name for name in names if mark in name), None)
        if example is not None:
            raise InputError(
                f"{source}: its tensors have {whose} names ({example}), and {namer.parameters} is "
                f"for those of {namer.name}; {remedy}"
            )
