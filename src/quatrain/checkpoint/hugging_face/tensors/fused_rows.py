"""Matrices that are several in one, cut by rows. A quantized matrix is cut as one in floating point
is: its scales have the same rows."""

import re
from collections.abc import Mapping

import torch

from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor, put_once
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.errors import InputError

_NAME = re.compile(r"(.*)\.(\w+)\.(weight|bias|scales|zeros)")


def rows_apart(
    stored: LazyTensors, parts: Mapping[str, Mapping[str, int]], source: str
) -> LazyTensors:
    """`stored`, with each matrix named in `parts` split into its parts, given in order by their
    names and rows.

    Raises `InputError`, naming `source`, if it has another number of rows, or a part is also stored
    by itself.
    """
    apart: dict[str, StoredTensor] = {}
    for name, tensor in stored.stored.items():
        match = _NAME.fullmatch(name)
        rows = parts.get(match[2]) if match else None
        if match is None or rows is None:
            put_once(apart, name, tensor, source)
            continue
        found = tensor.shape[0] if tensor.shape else 0
        if found != sum(rows.values()):
            raise InputError(f"{source}: {name} has {found} rows, expected {sum(rows.values())}")
        first = 0
        for part, count in rows.items():
            named = f"{match[1]}.{part}.{match[3]}"
            put_once(apart, named, tensor.rows(first, count), source)
            first += count
    return LazyTensors(apart)


def rows_of_heads_apart(
    stored: LazyTensors, matrix: str, parts: Mapping[str, int], heads: int, source: str
) -> LazyTensors:
    """As `rows_apart`, for the `matrix` of that name in each layer, in which the rows of its
    `parts`, given by their names and numbers of rows of one head, alternate for each of `heads`."""
    apart: dict[str, StoredTensor] = {}
    for name, tensor in stored.stored.items():
        module, is_matrix, kind = name.partition(f"{matrix}.")
        if not is_matrix:
            put_once(apart, name, tensor, source)
            continue
        orders = rows_by_head(tensor, name, heads, list(parts.values()), source)
        for part, order in zip(parts, orders, strict=True):
            put_once(apart, f"{module}{part}.{kind}", with_rows(tensor, order), source)
    return LazyTensors(apart)


def rows_by_head(
    tensor: StoredTensor, name: str, heads: int, widths: list[int], source: str
) -> list[torch.Tensor]:
    """The rows of each part of `tensor`, called `name`, given the numbers of rows that alternate
    for each of `heads`. Raises `InputError`, naming `source`, if it has another number of rows."""
    rows = tensor.shape[0] if tensor.shape else 0
    if rows != heads * sum(widths):
        expected = f"{sum(widths)} rows for each of {heads} heads"
        raise Fields({name: f"[{rows}, ...]"}, source).refusal(name, expected)
    return alternating_rows(rows, heads, widths)


def alternating_rows(rows: int, heads: int, widths: list[int]) -> list[torch.Tensor]:
    """The same, of a matrix with as many `rows`."""
    order = torch.arange(rows).view(heads, -1)
    return [part.flatten() for part in order.split(widths, dim=1)]


def with_rows(tensor: StoredTensor, order: torch.Tensor) -> StoredTensor:
    """Those rows of `tensor`, in that `order`."""
    return tensor.changed(lambda whole: whole[order], (len(order), *tensor.shape[1:]))
