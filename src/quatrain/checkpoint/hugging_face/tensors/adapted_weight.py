"""Merges an adapter into a weight: W + s B A, and replaced rows of tokens.

s is lora_alpha / r, or lora_alpha / sqrt(r) with `use_rslora` (Hu et al., 2021; Kalajdzievski,
2023). With `use_dora` each row of that, of an embedding each column, becomes as long as the
magnitude trained for it (Liu et al., 2024). With `lora_bias` B has a bias, and s times that is
added to the linear's.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from quatrain.checkpoint.files.adapter_folder import ADAPTER_CONFIG
from quatrain.checkpoint.files.lazy_tensors import StoredTensor
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.errors import InputError

TOKENS, MAGNITUDE, BIAS = "trainable_tokens_delta", "lora_magnitude_vector", "lora_B.bias"
_INDICES = "trainable_token_indices"


@dataclass(frozen=True)
class Adapted:
    """The base's tensor `name` that the folder `adapter` changes, whose config says `fields`; its
    module was called `in_training`, by which patterns and lists there know it."""

    name: str
    in_training: str
    fields: Fields
    adapter: Path


def adapted_weight(
    weight: StoredTensor, parts: dict[str, StoredTensor], adapted: Adapted
) -> StoredTensor:
    """`weight`, which is to be `adapted`, with the adapter's `parts` for it.

    Raises `InputError` if they do not fit it, or what the adapter's config says.
    """
    low_rank = {part: tensor for part, tensor in parts.items() if part not in (TOKENS, BIAS)}
    if low_rank or BIAS in parts:
        weight = _merged(weight, low_rank, adapted)
    if TOKENS in parts:
        weight = _with_rows(weight, parts[TOKENS], adapted)
    return weight


def adapted_bias(
    bias: StoredTensor | None, parts: dict[str, StoredTensor], adapted: Adapted
) -> StoredTensor:
    """The linear's `bias` [N], which is to be `adapted`, with the adapter's `parts` for the linear.
    Raises `InputError` if it has none, which PEFT does not merge either, or they do not fit."""
    name, adapter, change = adapted.name, adapted.adapter, parts[BIAS]
    if "lora_A" not in parts:
        raise InputError(
            f"{adapter}: has {BIAS} for {name}, but no lora_A of a linear; download it again"
        )
    if bias is None:
        raise InputError(
            f"{adapter}: changes {name} (lora_bias), which the model in --base does not have, and "
            "peft does not merge such an adapter either; train one without lora_bias"
        )
    if bias.shape != change.shape:
        raise InputError(
            f"{adapter}: its {BIAS} {list(change.shape)} for {name} does not fit its shape "
            f"{list(bias.shape)}; give the model that the adapter was trained on"
        )
    scale = _scale(adapted.fields, adapted.in_training, parts["lora_A"].shape[0])
    return StoredTensor(
        bias.shape, torch.float32, lambda: bias.load().float() + scale * change.load().float()
    )


def _merged(weight: StoredTensor, parts: dict[str, StoredTensor], adapted: Adapted) -> StoredTensor:
    name, fields, adapter = adapted.name, adapted.fields, adapted.adapter
    of_linear = bool(parts.keys() & {"lora_A", "lora_B"})
    magnitude = parts.get(MAGNITUDE)
    if fields.flag("use_dora") != (magnitude is not None):
        raise InputError(
            f"{adapter}: has {'a' if magnitude else 'no'} {MAGNITUDE} for {name}, but its "
            f"use_dora is {fields.get('use_dora')}; download both files again"
        )
    matrices = {part: tensor for part, tensor in parts.items() if part != MAGNITUDE}
    a, b = _matrices(matrices, of_linear, weight.shape, name, adapter)
    if magnitude is not None and magnitude.shape != weight.shape[: 1 if of_linear else None][-1:]:
        raise InputError(
            f"{adapter}: its {MAGNITUDE} {list(magnitude.shape)} for {name} does not fit the "
            f"shape {list(weight.shape)} in --base; give the model that the adapter was trained on"
        )
    _require_rank(fields, adapted.in_training, a.shape[0])
    scale = _scale(fields, adapted.in_training, a.shape[0])

    def load() -> torch.Tensor:
        change = b.load().float() @ a.load().float()
        if not change.isfinite().all():
            raise InputError(
                f"{adapter}: its matrices for {name} hold a NaN or an infinite weight; the adapter "
                "is damaged, or its training failed"
            )
        merged = weight.load().float() + scale * (change if of_linear else change.t())
        if magnitude is None:
            return merged
        length = merged.norm(dim=1 if of_linear else 0, keepdim=True)
        return merged * (magnitude.load().float().view(length.shape) / length)

    return StoredTensor(weight.shape, torch.float32, load)


def _with_rows(weight: StoredTensor, rows: StoredTensor, adapted: Adapted) -> StoredTensor:
    """`weight` with `rows` for the tokens that `trainable_token_indices` names: of the embedding,
    or by module."""
    name, fields, adapter = adapted.name, adapted.fields, adapted.adapter
    stated: Any = fields.get(_INDICES)
    if isinstance(stated, dict):
        module = adapted.in_training
        stated = next((stated[own] for own in stated if f".{module}".endswith(f".{own}")), None)
    if not isinstance(stated, list) or not all(type(index) is int for index in stated):
        raise fields.refusal(_INDICES, f"a list of the tokens of {name}")
    if rows.shape != (len(stated), *weight.shape[1:]) or any(
        not 0 <= index < weight.shape[0] for index in stated
    ):
        raise InputError(
            f"{adapter}: its {TOKENS} {list(rows.shape)} for the {len(stated)} tokens of "
            f"{_INDICES} does not fit {name} {list(weight.shape)}; give the model that the "
            "adapter was trained on, with the embedding resized as it was in training"
        )

    def load() -> torch.Tensor:
        return weight.load().float().index_copy(0, torch.tensor(stated), rows.load().float())

    return StoredTensor(weight.shape, torch.float32, load)


def _matrices(
    parts: dict[str, StoredTensor],
    of_linear: bool,
    shape: tuple[int, ...],
    name: str,
    adapter: Path,
) -> tuple[StoredTensor, StoredTensor]:
    """A and B. Raises `InputError` if one is missing, or they do not fit the weight `name` of that
    `shape`."""
    a, b = (parts.get(f"lora_{'' if of_linear else 'embedding_'}{part}") for part in "AB")
    if a is None or b is None or len(parts) > 2:
        found = ", ".join(parts) or BIAS
        raise InputError(f"{adapter}: has only {found} of {name}; download it again")
    sides, rank = shape if of_linear else shape[::-1], (*a.shape, 0)[0]
    if not rank or [b.shape, a.shape] != [(*sides[:1], rank), (rank, *sides[1:])]:
        raise InputError(
            f"{adapter}: its matrices {list(a.shape)} and {list(b.shape)} for {name} do not fit "
            f"the shape {list(shape)} in --base; give the model that the adapter was trained on"
        )
    return a, b


def _require_rank(fields: Fields, module: str, rank: int) -> None:
    """Refuse matrices of another `rank` than is stated: lora_alpha was meant for that one."""
    stated = _of_module(fields, "rank_pattern", "r", module)
    if stated != rank:
        raise InputError(
            f"{fields.source}: its r (or rank_pattern) says that the rank of {module} is "
            f"{stated:g}, but its matrices have rank {rank}; use both files of one adapter"
        )


def _scale(fields: Fields, module: str, rank: int) -> float:
    alpha = _of_module(fields, "alpha_pattern", "lora_alpha", module)
    return alpha / (rank**0.5 if fields.flag("use_rslora") else rank)


def _of_module(fields: Fields, patterns: str, of_all: str, module: str) -> float:
    """The number that the field `patterns` has for `module`, else that of all, PEFT's 8 if a file
    states none."""
    by_pattern = fields.object_of(patterns)
    own = next(
        (name for name in by_pattern if _matches_pattern(module, name, patterns, fields.source)),
        None,
    )
    if own is not None:
        return by_pattern.number(own)
    return (Fields({of_all: 8}, fields.source) | fields).number(of_all)


def _matches_pattern(module: str, pattern: str, field: str, source: str) -> bool:
    try:
        return re.match(rf"(.*\.)?({pattern})$", module) is not None
    except (re.error, RecursionError, OverflowError) as error:
        raise InputError(
            f"{source}: its {field} has {pattern[:100]!r}, which is not a valid pattern: {error}; "
            f"use the {ADAPTER_CONFIG} that was saved with the adapter"
        ) from error
