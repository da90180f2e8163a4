"""The groups of a stored linear: how many there are, and the group of each input feature."""

from collections.abc import Callable

import torch

from quatrain.checkpoint.files.lazy_tensors import StoredTensor
from quatrain.checkpoint.quantizers.parts import Parts
from quatrain.errors import InputError


def groups_of_rows(
    parts: Parts, part: str, shape: tuple[int, int], of: StoredTensor | None = None
) -> int:
    """G, from the scales [N, G] that are the `part`, or were made `of` it, of a weight of `shape`
    [N, K].

    Raises `InputError` if they do not fit the weight.
    """
    scale, (rows, columns) = parts[part] if of is None else of, shape
    groups = scale.shape[1] if len(scale.shape) == 2 else 0
    if not groups or columns % groups:
        raise InputError(
            f"{parts.called(part)} has shape {list(scale.shape)} for a weight of "
            f"{[rows, columns]}, expected a scale for each of G groups of a row, [{rows}, G]; "
            "quantize the original model"
        )
    parts.expect_shape(part, (rows, groups), floating=True, of=of)
    return groups


def groups_of_transposed(parts: Parts, shape: tuple[int, int], bits: int = 4) -> int:
    """G, from F.scales [G, N] and F.qzeros int32 [G, N * bits / 32] of the linear F of `shape`
    [N, K], as GPTQ and AWQ both store them.

    Raises `InputError` if they do not fit the weight.
    """
    rows, columns = shape
    groups = parts["scales"].shape[0] if parts["scales"].shape else 0
    if not groups or columns % groups:
        raise InputError(
            f"{parts.called('scales')} has {groups} groups for {columns} input features"
        )
    parts.expect_shape("scales", (groups, rows), floating=True)
    parts.expect_shape("qzeros", (groups, rows * bits // 32))
    parts.words("qzeros")
    return groups


def check_stated_size(stated: object, shape: tuple[int, int], groups: int, parts: Parts) -> None:
    """Refuse the linear of `parts` and of `shape` [N, K] in G = `groups` if its settings state
    another group size: an even split would not give the groups that it was quantized in.

    `stated` is the value there, which may be -1 or another value for a whole row; those are
    accepted.
    """
    columns = shape[1]
    if not isinstance(stated, int) or stated <= 0 or -(-columns // stated) == groups == 1:
        return
    if stated * groups != columns:
        raise InputError(
            f"{parts.source}: {parts.name} has {groups} scales a row for {columns} input "
            f"features, groups of {columns / groups:g}, but its settings have group_size "
            f"{stated}; correct group_size there, or quantize the original model"
        )


def group_indices(
    parts: Parts, part: str, columns: int, groups: int, none: int | None = None
) -> Callable[[], torch.Tensor] | None:
    """Reads the `part` that says the group of each of K = `columns` input features, int64 [K].

    None if a file has none. `none`: what an entry is where the groups are neighbours all the same.
    Raises `InputError` if it has another shape; so does the function, where it names a group that
    is not there.
    """
    if part not in parts:
        return None
    parts.expect_shape(part, (columns,))

    def read() -> torch.Tensor:
        found = parts[part].load().long()
        if none is not None and bool((found == none).any()):
            return torch.arange(columns) // (columns // groups)
        if int(found.min()) < 0 or int(found.max()) >= groups:
            raise InputError(f"{parts.called(part)} has group numbers outside 0 to {groups - 1}")
        return found

    return read
