"""Reads the pre-quantized layout itself under Hugging Face's names, as torchao's QAT for 8da4w
makes it of a model of transformers (`Int8DynActInt4WeightQATQuantizer.convert`).

F.weight int8 [N, K], F.scales float [N, G] and, if stored, F.zeros [N, G].
"""

from collections.abc import Iterable
from dataclasses import replace

import torch

from quatrain.checkpoint.files.lazy_tensors import StoredTensor
from quatrain.checkpoint.quantizers.grouped_linear import GroupedLinear
from quatrain.checkpoint.quantizers.groups import groups_of_rows
from quatrain.checkpoint.quantizers.parts import Parts
from quatrain.checkpoint.quantizers.quantizer import Quantizer, Settings
from quatrain.linear.packing import is_int4


def is_unpacked(names: Iterable[str]) -> bool:
    """Whether tensors of these `names`, which no other quantizer's settings explain, are so."""
    names = set(names)
    scaled = (name.removesuffix("scales") for name in names if name.endswith(".scales"))
    return any(f"{module}weight" in names for module in scaled)


def _read(parts: Parts, settings: Settings) -> GroupedLinear:
    weight, scales, zeros = parts["weight"], parts["scales"], parts.get("zeros")
    expected = (
        f"an int8 matrix beside {parts.name}.scales; if a quantizer wrote it, quantize the "
        "original model"
    )
    rows, columns = parts.matrix("weight", torch.int8, expected)
    if list(scales.shape) == [rows]:  # of a table
        scales = replace(scales, shape=(rows, 1))
    groups = groups_of_rows(parts, "scales", (rows, columns), scales)
    if zeros is not None:
        parts.expect_shape("zeros", parts["scales"].shape)
    return unpacked_linear(weight, scales, zeros, groups, is_table="layers." not in parts.name)


def unpacked_linear(
    weight: StoredTensor, scales: StoredTensor, zeros: StoredTensor | None, groups: int,
    is_table: bool,
) -> GroupedLinear:  # fmt: skip
    """The matrix of `weight` int8 [N, K], whose scales and zero points have a column for each of
    `groups` of a row, or are one for it; only a table may hold more than 4 bits."""
    rows, columns = weight.shape
    return GroupedLinear(
        shape=(rows, columns),
        groups=groups,
        scales_dtype=scales.dtype,
        values=weight.load,
        scales=lambda: scales.load().view(rows, groups),
        zeros=None if zeros is None else lambda: zeros.load().view(rows, groups),
        bits=8 if is_table and not is_int4(weight.load()) else 4,
    )


UNPACKED = Quantizer(
    name="torchao's QAT",
    required=("weight", "scales"),
    optional=("zeros",),
    read=_read,
)
