"""Runs ATen operators without a kernel here as torch's own, by their schema.

A Vulkan graph stores a value for each argument of the schema, in its order (ExecuTorch's
`backends/vulkan/serialization/vulkan_graph_builder.py`): None for every dtype, layout and device.
"""

from collections.abc import Callable
from typing import Any

import torch

from quatrain.runtime.reference.kernels import wide


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
