"""Which arguments of an operator a kernel uses: its parameters, by name.

What a kernel does not take has to be at the default of the operator's schema: it would be ignored
in silence otherwise.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

from quatrain.program import Operator, Plain, VulkanGraph
from quatrain.program.vulkan.operator_schemas import DEFAULTS, argument_names

# Arguments that change nothing of what an operator computes, whatever they are.
_WITHOUT_EFFECT = {
    # Where and how a tensor lies.
    "non_blocking", "dim_order", "memory_format", "layout", "device", "pin_memory",
    # The type of a result is the one that the graph declares for it.
    "half_to_float",
    # Of training.
    "padding_idx", "scale_grad_by_freq", "sparse", "sparse_grad",
}  # fmt: skip
# Linears with the sums of their weights, which only integer arithmetic needs.
_OF_INT8_WEIGHTS = (
    "et_vk.linear_q8ta_q8csw", "et_vk.q8ta_linear", "et_vk.q8ta_linear_gemv", "et_vk.q8ta_conv2d",
    "et_vk.q8ta_conv2d_pw", "et_vk.q8ta_conv2d_dw", "et_vk.q8ta_conv2d_transposed",
)  # fmt: skip
_WITHOUT_EFFECT_OF = {
    # Vulkan's shader has a smallest scale of its own: see `quatrain.arithmetic`.
    "torchao.choose_qparams_affine": {"eps"},
    # Bounds of the integers, which are within them.
    "torchao.dequantize_affine": {"quant_min", "quant_max"},
    "quantized_decomposed.dequantize_per_tensor": {"quant_min", "quant_max"},
    **{kind: {"weight_sums"} for kind in _OF_INT8_WEIGHTS},
    # What was traced; the true length is that of q.
    "sdpa_with_kv_cache": {"seq_len"},
}


def taken(kernel: Callable[..., Any], operator: Operator) -> dict[str, int]:
    """The arguments of `operator` that `kernel` has a parameter for: name -> value id."""
    names = operator.named_args
    return {name: names[name] for name in _parameters(kernel) if name in names}


def ignored_arguments(
    graph: VulkanGraph, operators: Iterable[Operator], kernels: Mapping[str, Callable[..., Any]]
) -> list[str]:
    """What the kernels, by the kind of operator, would ignore of `operators`: 'alpha=2 of
    aten.addmm.default', each once. Operators without a kernel are left out."""
    return sorted(
        {
            ignored
            for operator in operators
            if operator.kind in kernels
            for ignored in _ignored_arguments(graph, operator, kernels[operator.kind])
        }
    )


def _ignored_arguments(
    graph: VulkanGraph, operator: Operator, kernel: Callable[..., Any]
) -> list[str]:
    kind, parameters = operator.kind, _parameters(kernel)
    if argument_names(kind, len(operator.args)) is None:
        return [f"{len(operator.args) - 1} arguments of {operator.name}"]
    free = _WITHOUT_EFFECT | _WITHOUT_EFFECT_OF.get(kind, set()) | set(parameters) | {"out"}
    found = {name: graph.values[i] for name, i in operator.named_args.items() if name not in free}
    return [
        f"{name}={value.value if isinstance(value, Plain) else 'a tensor or number'} "
        f"of {operator.name}"
        for name, value in found.items()
        if not _is_default(name, value)
    ]


def _is_default(name: str, value: Any) -> bool:
    """Where nothing is said of what is False by default, it is False."""
    if name not in DEFAULTS or not isinstance(value, Plain):
        return False
    default = DEFAULTS[name]
    return value.value == default or (default is False and value.value is None)


@cache
def _parameters(kernel: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(kernel).parameters)
