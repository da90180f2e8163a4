"""Compares a program's int4 constants with the checkpoint's integers and scales, linear by
linear."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from quatrain.int4 import CHANNELS_TOGETHER
from quatrain.linear.packing import PACKED_ZEROS
from quatrain.program import Operator, VulkanGraph
from quatrain.program.inspect.linears import Linear, find_linears
from quatrain.program.int4_constants import are_apart, misread_types, most_rows
from quatrain.program.vulkan.packed_weights import group_sums

_APART = (
    "scales of groups are stored for other output channels than the kernel steps over: quatrain "
    "retarget MODEL.PTE --repair -o FIXED.PTE stores them as read"
)


@dataclass(frozen=True)
class PackedCheck:
    """What the constants of one `linear`, or embedding, gave; `problem` is None if they are the
    checkpoint's."""

    name: str
    problem: str | None


def check_packed(
    graph: VulkanGraph,
    tensors: Mapping[str, torch.Tensor],
    group_size: int,
    names: Collection[str] = (),
) -> list[PackedCheck]:
    """Compare each int4 linear of `graph` with `tensors`, in the pre-quantized layout.

    Integers and sums must be equal; scales equal once rounded to the program's type. A linear
    that the checkpoint does not hold is a problem too. Which one it is the graph's shape tells;
    where that does not (in Gemma 3n, say), it may be any of `names` that no other one is.
    """
    linears = [linear for linear in find_linears(graph) if linear.group_size is not None]

    def problem(linear: Linear, name: str, rows: int | None = None) -> str | None:
        return _problem(graph, linear, name, tensors, group_size, rows)

    checks = [PackedCheck(linear.name, problem(linear, linear.name)) for linear in linears]
    right = {check.name for check in checks if check.problem is None}
    left = [name for name in names if name not in right]
    for place, linear in enumerate(linears):
        if checks[place].problem is not None:
            # One row first: of many linears, all of which are wrong, each is held against all.
            alike = (name for name in left if problem(linear, name, 1) is None)
            name = next((name for name in alike if problem(linear, name) is None), None)
            if name is not None:
                checks[place] = PackedCheck(name, None)
                left.remove(name)
    known = {check.name for check in checks}
    return checks + [PackedCheck(name, "no linear has it") for name in left if name not in known]


def _problem(
    graph: VulkanGraph,
    linear: Linear,
    source: str,
    tensors: Mapping[str, torch.Tensor],
    group_size: int,
    rows: int | None,
) -> str | None:
    """What of `linear` is not that of `source` in `tensors`, all or so many of its first rows."""
    if source == "output" and "output.weight" not in tensors:
        source = "tok_embeddings"  # tied
    stored = _integers_and_scales(tensors, source)
    if stored is None:
        return f"the checkpoint has no {source}.scales"
    if linear.group_size != group_size:
        return f"groups of {linear.group_size}, the checkpoint has {group_size}"
    weights, scales = stored
    if list(weights.shape) != [linear.out_features, linear.in_features] and rows is not None:
        return "of another shape"
    weight = weights.numpy()
    scales = scales.float().reshape(weight.shape[0], -1).numpy()
    operator = graph.operators[linear.operator]
    names = operator.named_args
    packed = graph.constant(names["weights"])
    if rows is not None:
        return _integers(packed[:rows], weight[:rows])
    return (
        _integers(packed, weight)
        or _scales(graph.constant(names["weight_scales"]), scales)
        or (are_apart(graph, operator, "weight_scales") and _APART)
        or next(misread_types(graph, operator), None)
        or _sums(graph, operator, packed, group_size)
    )


def _integers_and_scales(
    tensors: Mapping[str, torch.Tensor], source: str
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """int8 [N, K] and the scales of `source`, None if there are none; `tensors` have all experts as
    one."""
    expert = re.fullmatch(r"(.*\.experts)\.(\d+)\.(\w+)", source)
    name = f"{expert[1]}.{expert[3]}" if expert else source
    if f"{name}.scales" not in tensors:
        return None
    weights, scales = tensors[f"{name}.weight"], tensors[f"{name}.scales"]
    if expert is None:
        return weights, scales
    index = int(expert[2])
    return (weights[index], scales[index]) if index < len(scales) else None


def _integers(packed: np.ndarray, weight: np.ndarray) -> str | None:
    rows, columns = weight.shape
    padding = packed[rows:]
    if packed.shape[0] < rows or len(padding) >= CHANNELS_TOGETHER or packed.shape[1] * 2 < columns:
        return f"packed weights {list(packed.shape)} for {list(weight.shape)} integers"
    if (padding != PACKED_ZEROS).any():
        return f"the {len(padding)} rows of padding behind {rows} are not zeros"
    packed = packed[:rows]
    # Low nibble: the even column's value + 8; high nibble: the odd one's.
    found = np.stack([packed & 15, packed >> 4], axis=-1).reshape(rows, -1).astype(np.int8) - 8
    return _first_difference("weight", found[:, :columns], weight)


def _scales(stored: np.ndarray, scales: np.ndarray) -> str | None:
    groups = scales.shape[1]
    if stored.shape[0] != groups or stored.shape[1] < scales.shape[0]:
        return f"scales {list(stored.shape)} for {list(scales.shape[::-1])} groups and rows"
    return _first_difference("scale", stored[:, : scales.shape[0]].T, scales.astype(stored.dtype))


def _sums(
    graph: VulkanGraph, operator: Operator, packed: np.ndarray, group_size: int
) -> str | None:
    names = operator.named_args
    if "weight_sums" not in names:
        return None
    stored, expected = graph.constant(names["weight_sums"]), group_sums(packed, group_size)
    # Of several groups, those filled up further are misread, by calls of several rows.
    if len(expected) == 1 or most_rows(graph, operator) == 1:
        stored = stored[:, : expected.shape[1]]
    return _first_difference("group sum", stored, expected)


def _first_difference(what: str, found: np.ndarray, expected: np.ndarray) -> str | None:
    if found.shape != expected.shape:
        return f"{what}s {list(found.shape)}, expected {list(expected.shape)}"
    wrong = np.argwhere(found != expected)
    if not len(wrong):
        return None
    at = tuple(wrong[0])
    return (
        f"{len(wrong)} {what}{'s differ' if len(wrong) > 1 else ' differs'}, the first at "
        f"{[int(i) for i in at]}: {found[at]}, the checkpoint has {expected[at]}"
    )
