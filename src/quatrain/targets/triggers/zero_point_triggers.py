"""Triggers of defects of the type in which zero points of 8da4w's activations are stored."""

from quatrain.program import VulkanGraph
from quatrain.program.inspect.report import activation_dtype
from quatrain.program.vulkan.linear_kernels import DYNAMIC_LINEAR
from quatrain.targets.triggers.linear_triggers import linears
from quatrain.targets.triggers.occurrence import Occurrence, Occurrences

_FLOAT = ("float16", "float32")
_WEIGHT_ONLY = "quatrain retarget {model} --linear-scheme weight-only -o fixed.pte"
# For programs in float32: in float16 the releases that meet the defect read no type right.
_INT8 = (
    "; or, keeping 8da4w, quatrain retarget {model} --linear-scheme 8da4w --zero-point-dtype int8 "
    "-o fixed.pte"
)


def zero_points_float(graph: VulkanGraph) -> Occurrences:
    """Dynamic int4 linears whose zero points are float16 or float32."""
    remedy = _WEIGHT_ONLY + _INT8 * (activation_dtype(graph) == "float32")
    return [Occurrence(name, None, remedy) for name in _with_zero_points(graph, *_FLOAT)]


def zero_points_half(graph: VulkanGraph) -> Occurrences:
    """Dynamic int4 linears whose zero points are float16."""
    return [Occurrence(name) for name in _with_zero_points(graph, "float16")]


def zero_points_int8_in_fp16(graph: VulkanGraph) -> Occurrences:
    """Dynamic int4 linears whose zero points are int8 while the activations are float16."""
    if activation_dtype(graph) != "float16":
        return []
    return [Occurrence(name) for name in _with_zero_points(graph, "int8")]


def odd_zero_points(graph: VulkanGraph) -> Occurrences:
    """Dynamic int4 linears whose zero points are neither int8 nor floating point."""
    return [
        Occurrence(f"{linear.name}: {linear.zero_points}")
        for linear, _ in linears(graph, DYNAMIC_LINEAR)
        if linear.zero_points not in ("int8", *_FLOAT)
    ]


def _with_zero_points(graph: VulkanGraph, *dtypes: str) -> list[str]:
    """The names of the dynamic int4 linears whose zero points are of one of `dtypes`."""
    return [
        linear.name for linear, _ in linears(graph, DYNAMIC_LINEAR) if linear.zero_points in dtypes
    ]
