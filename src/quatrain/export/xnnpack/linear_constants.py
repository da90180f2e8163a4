"""What XNNPACK's serializer stores of a linear."""

from typing import Any

from torch import nn

from quatrain.export.template.constants import xnnpack_bytes
from quatrain.export.xnnpack.delegate_keys import SCALES_PREFIX
from quatrain.export.xnnpack.joined_linears import JoinedLinear
from quatrain.export.xnnpack.small_linears import FixedLinear
from quatrain.linear import Int8DynActInt8WeightLinear
from quatrain.linear.int4 import Int4Linear
from quatrain.program.edit.constant_source import ConstantSource, Form

Linear = Int4Linear | Int8DynActInt8WeightLinear | nn.Linear | FixedLinear | JoinedLinear
Constants = list[tuple[str, bytes]]  # (key prefix, bytes) of each


def members_of(linear: Linear) -> list[Any]:
    """The linears whose rows that one has."""
    return list(linear) if isinstance(linear, JoinedLinear) else [linear]


def _parts(linear: Linear) -> list[tuple[str, ConstantSource]]:
    """(key prefix, form and tensor of the linear) of each constant."""
    if isinstance(linear, Int4Linear):
        # XNNPACK's group-wise kernels take bfloat16 scales.
        forms = [("", Form.PACKED, "weight"), (SCALES_PREFIX, Form.BFLOAT16, "scales")]
    elif isinstance(linear, Int8DynActInt8WeightLinear):
        forms = [("", Form.PLAIN, "weight"), (SCALES_PREFIX, Form.PLAIN, "scales")]
    else:
        forms = [("", Form.PLAIN, "weight")]
    if getattr(linear, "bias", None) is not None:
        forms.append(("", Form.FLOAT32, "bias"))
    return [(prefix, ConstantSource(form, tensor)) for prefix, form, tensor in forms]


def names_of(linear: Linear, path: str) -> Constants:
    """The names of the constants of the linear at `path`: (key prefix, name)."""
    parts = _parts(members_of(linear)[0])
    return [(prefix, source.below(path).key.encode()) for prefix, source in parts]


def constants_of(linear: Linear) -> Constants:
    """A linear's constants: (key prefix, bytes)."""
    every = members_of(linear)
    return [
        (prefix, xnnpack_bytes(source.form, *(getattr(each, source.tensor) for each in every)))
        for prefix, source in _parts(every[0])
    ]
