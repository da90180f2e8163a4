"""Finds the kernel of an operator: ours, or torch's own."""

from collections.abc import Callable
from typing import Any

import torch

from quatrain.program import Operator, VulkanGraph
from quatrain.program.vulkan.half_buffers import in_half_buffer
from quatrain.program.vulkan.linear_kernels import INT4_LINEARS
from quatrain.program.vulkan.operator_schemas import argument_names
from quatrain.runtime.operators.arguments import ignored_arguments, taken
from quatrain.runtime.reference.attention import ATTENTION_KERNELS
from quatrain.runtime.reference.half_attention import HALF_ATTENTION
from quatrain.runtime.reference.half_products import HALF_PRODUCTS
from quatrain.runtime.reference.kernels import KERNELS, wide
from quatrain.runtime.reference.quantized import QUANTIZED_KERNELS
from quatrain.runtime.reference.static_int8 import STATIC_INT8_KERNELS
from quatrain.runtime.unavailable import RuntimeUnavailable

ALL_KERNELS: dict[str, Callable[..., Any]] = {
    **KERNELS, **ATTENTION_KERNELS, **QUANTIZED_KERNELS, **STATIC_INT8_KERNELS
}  # fmt: skip
_HALF_KERNELS: dict[str, Callable[..., Any]] = {**HALF_ATTENTION, **HALF_PRODUCTS}


def kernel_of(operator: Operator, graph: VulkanGraph) -> tuple[Callable[..., Any], tuple[int, ...]]:
    """The kernel of `operator` of `graph`, and the ids of the arguments that it takes."""
    torchs = _torch_kernel(operator)
    if torchs is not None:
        return torchs, operator.args[:-1]
    kernel = _half_kernel(operator, graph) or ALL_KERNELS[operator.kind]
    names = taken(kernel, operator)
    return lambda *values: kernel(**dict(zip(names, values, strict=True))), tuple(names.values())


def _half_kernel(operator: Operator, graph: VulkanGraph) -> Callable[..., Any] | None:
    """The kernel of an operator that sums in float16 on a phone: its result is a buffer of it."""
    return _HALF_KERNELS.get(operator.kind) if in_half_buffer(graph, operator) else None


def require_kernels(graph: VulkanGraph, what: str) -> None:
    """Raise `RuntimeUnavailable`, naming `what`, for an operator or an argument that no kernel here
    takes."""
    known = {*ALL_KERNELS, *INT4_LINEARS}
    own = [operator for operator in graph.operators if _torch_kernel(operator) is None]
    unknown = sorted({op.name for op in own if op.kind not in known})
    if unknown:
        reason = f"the reference runtime has no kernel for {', '.join(unknown)}"
        raise RuntimeUnavailable(f"{what}: {reason}", reason)
    ignored = ignored_arguments(graph, own, ALL_KERNELS)
    if ignored:
        reason = f"no kernel of the reference runtime takes {', '.join(ignored)}"
        raise RuntimeUnavailable(f"{what}: {reason}", reason)


def _torch_kernel(operator: Operator) -> Callable[..., Any] | None:
    """Torch's own kernel of an operator, or of an overload, that has none here."""
    if operator.kind in ALL_KERNELS and argument_names(operator.kind, len(operator.args)):
        return None
    return aten_kernel(operator.name, len(operator.args) - 1)


def aten_kernel(name: str, arguments: int) -> Callable[..., Any] | None:
    """What computes `name`, such as 'aten.max_pool2d.default', from its `arguments` by position.

    None if torch has no such operator, or one that writes to its arguments or is random.
    """
    namespace, _, rest = name.partition(".")
    kind, _, overload_name = rest.partition(".")
    overload = getattr(getattr(torch.ops.aten, kind, None), overload_name or "default", None)
    if namespace != "aten" or overload is None or len(overload._schema.arguments) != arguments:
        return None
    if overload._schema.is_mutable or torch.Tag.nondeterministic_seeded in overload.tags:
        return None
    by_name = [argument.name for argument in overload._schema.arguments if argument.kwarg_only]

    def call(*values: Any) -> Any:
        wide = [_widened(value) for value in values]
        positional = len(wide) - len(by_name)
        named = dict(zip(by_name, wide[positional:], strict=True))
        return overload(*wide[:positional], **named)

    return call


def _widened(value: Any) -> Any:
    """Floating-point tensors as float32, and integers that the graph narrowed as int64 again,
    because torch accepts only int64 as an index. The runner rounds a result to the type that the
    graph declares."""
    if isinstance(value, list):
        return [_widened(item) for item in value]
    if isinstance(value, torch.Tensor) and value.dtype == torch.int32:
        return value.long()
    return wide(value)
