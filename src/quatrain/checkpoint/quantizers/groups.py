"""The groups of a stored linear: how many there are, and which one each input feature is in."""

from collections.abc import Callable

import torch

from quatrain.checkpoint.files.lazy_tensors import StoredTensor
from quatrain.checkpoint.quantizers.quantizer import Parts
from quatrain.checkpoint.quantizers.stored_shapes import expect_shape, words_of
from quatrain.errors import InputError


def groups_of_rows(scale: StoredTensor, shape: tuple[int, int], name: str, source: str) -> int:
    """G, from the scales [N, G] called `name` of a weight of `shape` [N, K].

    Raises `InputError` where they do not fit the weight.
    """
    rows, columns = shape
    groups = scale.shape[1] if len(scale.shape) == 2 else 0
    if not groups or columns % groups:
        raise InputError(
            f"{source}: {name} has shape {list(scale.shape)} for a weight of {[rows, columns]}, "
            f"expected a scale for each of G groups of a row, [{rows}, G]; quantize the model that "
            "it was made from"
        )
    expect_shape(scale, (rows, groups), name, source, floating=True)
    return groups


def groups_of_transposed(
    parts: Parts, shape: tuple[int, int], name: str, source: str, bits: int = 4
) -> int:
    """G, from F.scales [G, N] and F.qzeros int32 [G, N * bits / 32] of the linear F of `shape`
    [N, K] called `name`, as GPTQ and AWQ both store them.

    Raises `InputError` where they do not fit the weight.
    """
    rows, columns = shape
    groups = parts["scales"].shape[0] if parts["scales"].shape else 0
    if not groups or columns % groups:
        raise InputError(
            f"{source}: {name}.scales has {groups} groups for {columns} input features"
        )
    expect_shape(parts["scales"], (groups, rows), f"{name}.scales", source, floating=True)
    expect_shape(parts["qzeros"], (groups, rows * bits // 32), f"{name}.qzeros", source)
    words_of(parts["qzeros"], f"{name}.qzeros", source)
    return groups


def check_stated_size(
    stated: object, shape: tuple[int, int], groups: int, name: str, source: str
) -> None:
    """Refuse the linear `name` of `shape` [N, K] in G = `groups` where its settings state another
    group size: evenly cut, its groups would not be those that it was quantized in.

    `stated` is as it stands there, -1 and others for a whole row among it, which say nothing.
    """
    columns = shape[1]
    if not isinstance(stated, int) or stated <= 0 or -(-columns // stated) == groups == 1:
        return
    if stated * groups != columns:
        raise InputError(
            f"{source}: {name} has {groups} scales a row for {columns} input features, groups of "
            f"{columns / groups:g}, and its settings state group_size {stated}; state there what "
            "its weights were quantized in, or quantize the model that it was made from"
        )


def group_indices(
    stored: StoredTensor | None,
    columns: int,
    groups: int,
    name: str,
    source: str,
    none: int | None = None,
) -> Callable[[], torch.Tensor] | None:
    """Reads `stored`, called `name`: the group of each of K = `columns` input features, int64 [K].

    None where a file has none. `none`: what an entry is where the groups are neighbours all the
    same. Raises `InputError` where it has another shape; so does the function, where it names a
    group that is not there.
    """
    if stored is None:
        return None
    expect_shape(stored, (columns,), name, source)

    def read() -> torch.Tensor:
        found = stored.load().long()
        if none is not None and bool((found == none).any()):
            return torch.arange(columns) // (columns // groups)
        if int(found.min()) < 0 or int(found.max()) >= groups:
            raise InputError(f"{source}: {name} names a group outside 0 to {groups - 1}")
        return found

    return read
