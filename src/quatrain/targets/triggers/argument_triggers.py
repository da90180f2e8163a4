"""Triggers of arguments that the runtime needs when it loads a program: fixed values and constants.

Each was left out, or computed, on ExecuTorch's runtime, whose C++ asks for it (`extract_scalar`,
`get_tref`, `prepack_standard`).
"""

from quatrain.program import Operator, Plain, VulkanGraph
from quatrain.program.vulkan.linear_kernels import CHOOSE_QPARAMS, INT4_LINEARS
from quatrain.program.vulkan.operator_schemas import argument_names
from quatrain.targets.triggers.occurrence import (
    Occurrence,
    Occurrences,
    is_constant,
    operators,
)

# Operators of which the second argument is a number or a list of them.
_SECOND = (
    "sym_size", "aten._softmax", "aten._log_softmax", "aten.permute_copy", "aten.permute",
    "aten.unsqueeze_copy", "aten.cat", "aten.gather", "aten.index_select", "aten.select_copy",
    "aten.flip", "aten.full", "aten.full_like", "aten.pow", "aten.eq", "aten.ne", "aten.ge",
    "aten.gt", "aten.le", "aten.lt",
)  # fmt: skip
_BATCH_NORM = "aten._native_batch_norm_legit_no_training"
# Operator -> the places of the arguments that may not be left out.
_NEEDED = {
    "et_vk.rms_norm": (1, 2), "aten.native_layer_norm": (2, 3, 4), _BATCH_NORM: (1, 2, 3, 4, 6),
    "aten.native_group_norm": (1, 2), "aten.add": (2,), "aten.sub": (2,),
    "aten.convolution": (6,), "et_vk.conv_with_clamp": (6, 9, 10), "aten.avg_pool2d": (2, 5),
    "aten.max_pool2d": (2,), "aten.max_pool2d_with_indices": (2,),
    "aten.upsample_bilinear2d": (2,), **dict.fromkeys(_SECOND, (1,)),
    **dict.fromkeys(("add", "sub", "mul", "floordiv"), (0, 1)),
    "et_vk.select_as_symint": (1, 2), "et_vk.embedding_q4gsw": (2, 4), "aten.slice_copy": (1, 4),
    "aten.constant_pad_nd": (2,), "aten.split_with_sizes_copy": (2,), CHOOSE_QPARAMS: (2, 5),
    "et_vk.apply_rotary_emb_hf": (4,), "sdpa_with_kv_cache": (5,), "custom_sdpa": (3,),
    "update_cache": (2,),
}  # fmt: skip
# Operator -> the places of weights, which are packed as the program is loaded.
_WEIGHTS = {
    "et_vk.rms_norm": (1,), "aten.native_layer_norm": (2, 3), _BATCH_NORM: (1, 2, 3, 4),
    "aten.native_group_norm": (1, 2), "aten.convolution": (1, 2), "et_vk.conv_with_clamp": (1, 2),
    "aten.linear": (1, 2), "aten.embedding": (0,), "et_vk.embedding_q4gsw": (0, 1),
}  # fmt: skip
_WEIGHTS_BY_NAME = ("weights", "weight_sums", "weight_scales", "bias")


def arguments_missing(graph: VulkanGraph) -> Occurrences:
    """Arguments that are null, or an empty list, where the runtime has no default."""
    return [
        Occurrence(f"{place}: {_name(operator, at)} is missing")
        for place, operator in operators(graph, *_NEEDED, "aten.div")
        for at in _needed_arguments(graph, operator)
        if at < len(operator.args) - 1 and _is_missing(graph.values[operator.args[at]])
    ]


def weights_computed(graph: VulkanGraph) -> Occurrences:
    """Weights and biases that are no constants of the program."""
    return [
        Occurrence(f"{place}: {_name(operator, at)} is computed")
        for place, operator in operators(graph, *_WEIGHTS, *INT4_LINEARS)
        for at in _weights(operator)
        if not isinstance(graph.values[operator.args[at]], Plain)
        and not is_constant(graph, operator.args[at])
    ]


def _needed_arguments(graph: VulkanGraph, operator: Operator) -> tuple[int, ...]:
    if operator.kind == "aten.div":  # of Tensor_mode, which alone has a rounding mode
        return (2,) if len(operator.args) > 3 else ()
    if operator.kind == CHOOSE_QPARAMS and _is_missing(graph.values[operator.args[4]]):
        return (2,)  # without the smallest integer, those of int8 are taken
    return _NEEDED[operator.kind]


def _weights(operator: Operator) -> tuple[int, ...]:
    if operator.kind in INT4_LINEARS:
        places = {value: at for at, value in enumerate(operator.args[:-1])}
        named = operator.named_args
        return tuple(places[named[name]] for name in _WEIGHTS_BY_NAME if name in named)
    return _WEIGHTS[operator.kind]


def _is_missing(value: object) -> bool:
    return isinstance(value, Plain) and (value.value is None or value.value in ((), []))


def _name(operator: Operator, at: int) -> str:
    """What the argument at this place is called, for people."""
    names = argument_names(operator.kind, len(operator.args))
    return names[at] if names else f"argument {at}"
