"""Matrices that are several in one, cut by rows. A quantized matrix is cut as one in floating point
is: its scales have the same rows."""

import re
from collections.abc import Mapping

from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor, put_once
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
