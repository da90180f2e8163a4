"""Make a floating-point module ready to load a pre-quantized checkpoint.

The functions keep the names and signatures of ExecuTorch's
`source_transformation/pre_quantization.py` (PR 20644 adds `weight_only`). They work on any
`nn.Module` and any mapping of names to tensors, change the module in place, and read shapes
and dtypes of the checkpoint's tensors but, `zeros` excepted, not their data.
"""

from collections.abc import Callable, Iterator, Mapping, MutableMapping

import torch
from torch import nn

from quatrain.errors import InputError
from quatrain.int4 import GROUP_SIZES
from quatrain.linear import (
    Int8DynActInt4WeightLinear,
    Int8DynActInt8WeightLinear,
    QuantizedGroupEmbedding,
    WeightOnlyInt4Linear,
)


def transform_linear_for_pre_quantization(
    module: nn.Module,
    checkpoint: Mapping[str, torch.Tensor],
    group_size: int,
    dtype: torch.dtype,
    weight_only: bool = False,
) -> nn.Module:
    """Swap each `nn.Linear` that has int4 groups in the checkpoint; returns `module`.

    A linear `F` is swapped where `checkpoint` holds `F.scales`; others are left alone.
    `weight_only` picks `WeightOnlyInt4Linear` in place of `Int8DynActInt4WeightLinear`.
    Expected: `F.weight` int8 [N, K], `F.scales` [N, K / group_size] in `dtype`, `F.zeros`
    absent or all zero.

    Raises `InputError` naming the tensor, what was found and what was expected.
    """
    _check_group_size(group_size)
    kind = WeightOnlyInt4Linear if weight_only else Int8DynActInt4WeightLinear

    def int4_linear(name: str, linear: nn.Module) -> nn.Module:
        assert isinstance(linear, nn.Linear)
        rows, columns = linear.out_features, linear.in_features
        if columns % group_size:
            raise InputError(
                f"{name}.weight: has {columns} input channels, expected a multiple of the "
                f"group size {group_size}; use a group size that divides it"
            )
        _expect(checkpoint, f"{name}.weight", (rows, columns), torch.int8)
        _expect(checkpoint, f"{name}.scales", (rows, columns // group_size), dtype)
        _refuse_asymmetric(checkpoint, f"{name}.zeros")
        return kind(
            columns,
            rows,
            bias=linear.bias is not None,
            device=linear.weight.device,
            groupsize=group_size,
            precision=dtype,
            scales_precision=dtype,
        )

    return _swap(module, nn.Linear, checkpoint, int4_linear)


def transform_output_linear_for_pre_quantization(
    module: nn.Module,
    checkpoint: Mapping[str, torch.Tensor],
    dtype: torch.dtype,
) -> nn.Module:
    """Swap the output linear for its int8 per-channel form; returns `module`.

    Swapped are the linears whose name contains "output" and which have `.scales` [N] or
    [N, 1] in the checkpoint; `dtype` is their activation's and result's dtype.

    Raises `InputError` as `transform_linear_for_pre_quantization` does, and for a bias,
    which that form does not have.
    """

    def int8_linear(name: str, linear: nn.Module) -> nn.Module:
        assert isinstance(linear, nn.Linear)
        if linear.bias is not None:
            raise InputError(f"{name}.bias: an int8 output linear has no bias")
        rows, columns = linear.out_features, linear.in_features
        _expect(checkpoint, f"{name}.weight", (rows, columns), torch.int8)
        _expect(checkpoint, f"{name}.scales", (rows,), dtype, or_column=True)
        _refuse_asymmetric(checkpoint, f"{name}.zeros")
        return Int8DynActInt8WeightLinear(
            columns, rows, device=linear.weight.device, precision=dtype
        )

    return _swap(module, nn.Linear, checkpoint, int8_linear, only_named="output")


def transform_embedding_for_pre_quantization(
    module: nn.Module,
    checkpoint: Mapping[str, torch.Tensor],
    dtype: torch.dtype,
    bit_width: int,
    group_size: int | None = None,
    scales_precision: torch.dtype | None = None,
) -> nn.Module:
    """Swap each `nn.Embedding` that has `.scales` in the checkpoint; returns `module`.

    `bit_width` is 8 or 4; `group_size` None or 0 means one scale per row. `dtype` is the
    result's dtype, `scales_precision` (float32 unless given) that of the stored scales.

    Raises `InputError` as `transform_linear_for_pre_quantization` does.
    """
    if group_size:
        _check_group_size(group_size)
    scales_dtype = scales_precision or torch.float32

    def quantized_embedding(name: str, embedding: nn.Module) -> nn.Module:
        assert isinstance(embedding, nn.Embedding)
        rows, columns = embedding.num_embeddings, embedding.embedding_dim
        groups = columns // group_size if group_size else 1
        if group_size and columns % group_size:
            raise InputError(
                f"{name}.weight: rows of {columns}, expected a multiple of the "
                f"group size {group_size}"
            )
        _expect(checkpoint, f"{name}.weight", (rows, columns), torch.int8)
        shape = (rows, groups) if groups > 1 else (rows,)
        _expect(checkpoint, f"{name}.scales", shape, scales_dtype, or_column=groups == 1)
        _refuse_asymmetric(checkpoint, f"{name}.zeros")
        return QuantizedGroupEmbedding(
            rows,
            columns,
            group_size=group_size,
            bit_width=bit_width,
            dtype=dtype,
            device=embedding.weight.device,
            scales_precision=scales_dtype,
        )

    return _swap(module, nn.Embedding, checkpoint, quantized_embedding)


def sanitize_checkpoint_from_pre_quantization(
    checkpoint: MutableMapping[str, torch.Tensor],
) -> None:
    """Make every tensor contiguous and drop dimensions of size 1, in place.

    So `[N, 1]` per-channel scales become `[N]`. A tensor that is contiguous already is
    neither copied nor read. A mapping that loads lazily must be turned into a dict first.
    """
    for name in list(checkpoint):
        checkpoint[name] = torch.squeeze(checkpoint[name].contiguous())


def _swap(
    module: nn.Module,
    kind: type[nn.Module],
    checkpoint: Mapping[str, torch.Tensor],
    make: Callable[[str, nn.Module], nn.Module],
    only_named: str = "",
) -> nn.Module:
    """Replace each descendant of `kind` that has `.scales`, all of them or, on an error, none."""
    chosen = [
        (parent, attribute, make(name, child))
        for parent, attribute, name, child in _children(module)
        if isinstance(child, kind) and f"{name}.scales" in checkpoint and only_named in name
    ]
    for parent, attribute, replacement in chosen:
        setattr(parent, attribute, replacement)
    return module


def _children(module: nn.Module) -> Iterator[tuple[nn.Module, str, str, nn.Module]]:
    """Each descendant as (parent, attribute, full name, itself), one entry per parent it has."""
    for prefix, parent in module.named_modules():
        for attribute, child in parent.named_children():
            yield parent, attribute, f"{prefix}.{attribute}" if prefix else attribute, child


def _check_group_size(group_size: int) -> None:
    if group_size not in GROUP_SIZES:
        sizes = ", ".join(map(str, GROUP_SIZES))
        raise InputError(f"group size is {group_size}, expected one of {sizes}")


def _expect(
    checkpoint: Mapping[str, torch.Tensor],
    name: str,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    or_column: bool = False,
) -> None:
    """Refuse a tensor of another shape ([N, 1] for [N] passes with `or_column`) or dtype."""
    if name not in checkpoint:
        raise InputError(f"{name}: is missing from the checkpoint, which has its other half")
    tensor = checkpoint[name]
    found = tuple(tensor.shape)
    if found != shape and not (or_column and found == (*shape, 1)):
        raise InputError(
            f"{name}: has shape {list(found)}, expected {list(shape)}; "
            "check the group size and params.json"
        )
    if tensor.dtype != dtype:
        raise InputError(f"{name}: has dtype {tensor.dtype}, expected {dtype}")


def _refuse_asymmetric(checkpoint: Mapping[str, torch.Tensor], name: str) -> None:
    """The int4 kernels assume a zero point of 0 and would ignore another without a word."""
    if name in checkpoint and bool(torch.any(checkpoint[name] != 0)):
        raise InputError(
            f"{name}: holds non-zero zero points, expected all zero; the on-device int4 kernels "
            "are symmetric and would ignore them. Quantize symmetrically, or requantize."
        )
