"""Checks the names, shapes and dtypes of a checkpoint against its parameters, from headers only."""

from collections.abc import Mapping
from typing import Any

import torch

from quatrain.backbone.tensor_shapes import linear_shapes
from quatrain.backbone.vector_shapes import vector_shapes
from quatrain.checkpoint.files.lazy_tensors import dtype_name
from quatrain.checkpoint.layout import (
    OUTPUT,
    StoredModel,
    float_shapes,
    optional_tables,
    table_shapes,
)
from quatrain.errors import InputError
from quatrain.int4 import GROUP_SIZES
from quatrain.short_lists import and_more

_FLOATING = (torch.float32, torch.float16, torch.bfloat16)


def check_structure(model: StoredModel, params: Mapping[str, Any]) -> int:
    """The linears' group size. Raises `InputError` naming what does not fit the layout."""
    config = model.config
    model.check_layer_count()
    linears, vectors = linear_shapes(config), vector_shapes(config)
    tables = table_shapes(config).keys()
    _check_left_in_floating_point(model, vectors)
    required = {f"{name}.weight" for name in tables - optional_tables(config)} | set(vectors)
    required |= {f"{name}.{part}" for name in linears for part in ("weight", "scales")}
    optional = {f"{name}.zeros" for name in (*linears, *tables)}
    optional |= {f"{name}.{part}" for name in tables for part in ("weight", "scales")}
    optional |= {f"{name}.adaptor.{part}.weight" for name in linears for part in "AB"}
    model.check_names(required, optional)
    for name in sorted(tables):
        if f"{name}.scales" in model.stored and f"{name}.weight" not in model.stored:
            raise InputError(f"{model.source}: {name}.scales has no {name}.weight")

    model.check_shapes(float_shapes(config))
    model.check_tables()
    for name in vectors:
        _check_dtype(model, name, _FLOATING)

    group_size = _group_size(model, next(iter(linears)), params)
    for name, shape in linears.items():
        _check_quantized(model, name, [_grouped(shape, group_size)])
        _check_adaptor(model, name, shape)
    _check_table(model, OUTPUT, [group_size])
    # An embedding's groups may be of another size than the linears'.
    for name in tables - {OUTPUT}:
        _check_table(model, name, list(GROUP_SIZES))
    return group_size


def _check_left_in_floating_point(model: StoredModel, vectors: Mapping[str, Any]) -> None:
    """Raise `InputError` if something of `vectors` is quantized, which files may have that this
    layout has not: routers, gates of one row and the like."""
    modules = [name.removesuffix(".weight") for name in vectors]
    found = [name for name in modules if f"{name}.scales" in model.stored]
    if found:
        raise InputError(
            f"{model.source}: {and_more(found)} is quantized, but programs compute it in floating "
            "point; exclude it when you quantize the model (modules_to_not_convert, ignore), or "
            "run `quatrain quantize` on the floating-point model"
        )


def _group_size(model: StoredModel, linear: str, params: Mapping[str, Any]) -> int:
    """What params.json says, or else what the first linear's scales say."""
    weight, scales = (model.stored[f"{linear}.{part}"].shape for part in ("weight", "scales"))
    columns = scales[1] if len(scales) == 2 else 0
    inferred = weight[1] // columns if columns and weight[1] % columns == 0 else None
    arguments = params.get("quantization_args")
    declared = arguments.get("group_size") if isinstance(arguments, dict) else None
    group_size = inferred if declared is None else declared
    if group_size not in GROUP_SIZES or isinstance(group_size, bool):
        raise InputError(
            f"{model.source}: the group size is {group_size!r} ({linear}.scales has shape "
            f"{list(scales)}), expected one of {', '.join(map(str, GROUP_SIZES))}"
        )
    return group_size


def _grouped(shape: tuple[int, ...], group_size: int) -> tuple[int, ...]:
    """The shape of the scales of a weight [..., K]; () if K is not a whole number of groups."""
    return (*shape[:-1], shape[-1] // group_size) if shape[-1] % group_size == 0 else ()


def _check_table(model: StoredModel, name: str, group_sizes: list[int]) -> None:
    """An embedding or output layer: quantized where it has scales, per channel or in groups of
    one of `group_sizes`, else floating point."""
    if f"{name}.scales" in model.stored:
        shape = model.stored[f"{name}.weight"].shape
        scales = [(shape[0],), (shape[0], 1), *(_grouped(shape, size) for size in group_sizes)]
        _check_quantized(model, name, scales)
    elif f"{name}.weight" in model.stored:
        _check_dtype(model, f"{name}.weight", _FLOATING)


def _check_quantized(model: StoredModel, name: str, scales: list[tuple[int, ...]]) -> None:
    """`scales`: the shapes that `name`'s may have, () standing for one that is impossible."""
    _check_dtype(model, f"{name}.weight", (torch.int8,))
    _check_dtype(model, f"{name}.scales", _FLOATING)
    possible = [list(shape) for shape in dict.fromkeys(scales) if shape]
    for part in ("scales", "zeros"):
        tensor = model.stored.get(f"{name}.{part}")
        if tensor is not None and list(tensor.shape) not in possible:
            expected = " or ".join(map(str, possible)) or "a group size that divides it"
            raise InputError(
                f"{model.source}: {name}.{part} has shape {list(tensor.shape)}, expected "
                f"{expected} for a weight of {list(model.stored[f'{name}.weight'].shape)}; all "
                "linears have the group size of quantization_args in params.json, or without it "
                "that of the first linear: params.json belongs to another file, or this file is "
                "damaged"
            )


def _check_adaptor(model: StoredModel, name: str, shape: tuple[int, ...]) -> None:
    """A linear [N, K] may have A [rank, K] and B [N, rank], both or neither."""
    a, b = (model.stored.get(f"{name}.adaptor.{part}.weight") for part in "AB")
    if a is None and b is None:
        return
    found = [list(part.shape) if part else None for part in (a, b)]
    rank = a.shape[0] if a and len(a.shape) == 2 else 0
    if not rank or found != [[rank, shape[-1]], [shape[0], rank]]:
        raise InputError(
            f"{model.source}: {name}.adaptor has A {found[0]} and B {found[1]}, expected "
            f"[rank, {shape[-1]}] and [{shape[0]}, rank]"
        )
    for part in "AB":
        _check_dtype(model, f"{name}.adaptor.{part}.weight", _FLOATING)


def _check_dtype(model: StoredModel, name: str, dtypes: tuple[torch.dtype, ...]) -> None:
    if model.stored[name].dtype not in dtypes:
        expected = " or ".join(map(dtype_name, dtypes))
        found = dtype_name(model.stored[name].dtype)
        remedy = "write the checkpoint again from its source"
        module = name.removesuffix(".weight")
        if model.stored[name].dtype in _FLOATING and f"{module}.scales" in model.stored:
            remedy += f", without {module}.scales if it was left in floating point"
        raise InputError(f"{model.source}: {name} is {found}, expected {expected}; {remedy}")
