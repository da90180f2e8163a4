"""Detects tensors that are named by another program's convention than their parameters file."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from quatrain.errors import InputError


@dataclass(frozen=True)
class NamingConvention:
    """The tensor names of the program `name`, whose parameters are in the file `parameters`. `own`:
    parts of these names. `others`: a part of another program's names, whose names those are, and
    what the user should do."""

    name: str
    parameters: str
    own: tuple[str, ...]
    others: tuple[tuple[str, str, str], ...]


_GGUF = ("blk.", "llama.cpp's", "give the original GGUF file")
_ANOTHER = ("transformer.", "another program's", "convert them with the program that wrote them")
TRANSFORMERS = NamingConvention(
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
META = NamingConvention(
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


def require_naming_convention(
    convention: NamingConvention, stored: Iterable[str], source: Path | str
) -> None:
    """Raise `InputError`, naming `source`, if the `stored` names follow another convention."""
    names = sorted(stored)
    if any(mark in name for name in names for mark in convention.own):
        return
    for mark, whose, remedy in convention.others:
        example = next((name for name in names if mark in name), None)
        if example is not None:
            raise InputError(
                f"{source}: its tensors have {whose} names ({example}), but "
                f"{convention.parameters} belongs to names of {convention.name}; {remedy}"
            )
