"""Restores tensor names that a wrapper around the model has changed."""

import re
from collections.abc import Iterable

from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.errors import InputError

# torch.compile, FSDP, activation checkpointing and DDP name a module of their own, anywhere.
_ANYWHERE = re.compile(
    r"(?<![\w-])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|module)\."
)
# What every name of a model inside another begins with is before its embedding's; and of one
# without an embedding: PEFT.
_EMBEDDING = re.compile(r"((?:[\w-]+\.)*?)(?:model\.embed_tokens|embed_tokens|tok_embeddings)\.")
_BEFORE_ALL = ("base_model.model.",)
_ADAPTED = re.compile(r"\.(?:base_layer|lora_[AB]|modules_to_save|original_module)\.")
# All of a model but its output layer; of LFM2 a norm, of Gemma embeddings by layer and streams, of
# OPT positions and a norm.
_OF_MODEL = re.compile(
    r"layers\.\d+\.|embed_tokens(?:_per_layer)?\.|(?:embedding_)?norm\.|per_layer_\w+\.|altup_\w+\."
    r"|embed_positions\.|final_layer_norm\."
)


def without_wrappers(name: str) -> str:
    """`name` without wrapper modules, at any position."""
    return _ANYWHERE.sub("", name)


def unwrapped(stored: LazyTensors, source: str) -> LazyTensors:
    """`stored` under the model's own names. Raises `InputError`, naming `source`, if two tensors
    get one name, and for a model with an adapter that was not merged into it."""
    names = {name: without_wrappers(name) for name in stored}
    while prefix := _common_prefix(names.values()):
        names = {old: new.removeprefix(prefix) for old, new in names.items()}
    adapted = next((name for name in stored if _ADAPTED.search(name)), None)
    if adapted is not None:
        raise InputError(
            f"{source}: {adapted} is part of an adapter that is not merged into the model; save "
            "it with `model.merge_and_unload().save_pretrained(DIR)` of the package peft"
        )
    whose: dict[str, str] = {}
    for old, new in names.items():
        if new in whose:
            raise InputError(
                f"{source}: {whose[new]} and {old} are both {new} of the model; keep one of them"
            )
        whose[new] = old
    return stored.renamed(names)


def _common_prefix(names: Iterable[str]) -> str:
    names = list(names)
    embeddings = (match[1] for name in names if (match := _EMBEDDING.match(name)) and match[1])
    for prefix in (*embeddings, *_BEFORE_ALL):
        if names and all(name.startswith(prefix) for name in names):
            return prefix
    return ""


def with_model_prefix(stored: LazyTensors) -> LazyTensors:
    """`stored`, whose names begin with `model.` where they are those of a Hugging Face model
    without its output layer (`LlamaModel`), which has none."""
    if "embed_tokens.weight" not in stored:
        return stored
    return stored.renamed(
        {name: f"model.{name}" if _OF_MODEL.match(name) else name for name in stored}
    )
