"""Looks for each defect's trigger in a program: where it fires, and how sure that is.

A trigger takes the program, its Vulkan graph, and the GPU and runtime asked about, and returns
where it fires; the empty list where it does not.
"""

import math
from collections import Counter

import numpy as np

from quatrain.program import Program, Tensor, VulkanGraph
from quatrain.program.inspect.linears import find_linears
from quatrain.program.inspect.report import activation_dtype
from quatrain.program.linear_kernels import DYNAMIC_LINEAR, OtherScheme
from quatrain.targets.triggers import (
    attention_triggers,
    linear_triggers,
    load_triggers,
    operator_triggers,
)
from quatrain.targets.triggers.argument_triggers import ARGUMENT_TRIGGERS
from quatrain.targets.triggers.convolution_triggers import CONVOLUTION_TRIGGERS
from quatrain.targets.triggers.form_triggers import FORM_TRIGGERS
from quatrain.targets.triggers.layout_triggers import LAYOUT_TRIGGERS
from quatrain.targets.triggers.limits import attention_weights_beyond_buffer, beyond_gpu_limits
from quatrain.targets.triggers.method_triggers import METHOD_TRIGGERS
from quatrain.targets.triggers.occurrence import (
    Occurrence,
    Occurrences,
    Trigger,
    Where,
    is_constant,
    operators,
    takes_calls_of_any_length,
    tensor_text,
)
from quatrain.targets.triggers.padding_triggers import products_of_padding
from quatrain.targets.triggers.reduction_triggers import REDUCTION_TRIGGERS
from quatrain.targets.triggers.row_triggers import ROW_TRIGGERS
from quatrain.targets.triggers.shape_triggers import SHAPE_TRIGGERS
from quatrain.targets.triggers.static_int8_triggers import STATIC_INT8_TRIGGERS

_FP16_MAX = 65504.0
_BLOCK = 1 << 22  # elements of a constant looked at together


def more_rows_than_sums(program: Program, graph: VulkanGraph, where: Where) -> Occurrences:
    """Dynamic int4 linears that may see more rows than their scratch buffer holds."""
    for linear, operator in linear_triggers.linears(graph, DYNAMIC_LINEAR):
        x = graph.tensor(operator.named_args["x"])
        rows, channels = math.prod(x.shape[:-1]), x.shape[-1]
        limit = rows_that_sums_hold(channels, np.dtype(graph.tensor(operator.out).dtype).itemsize)
        if rows > limit:
            yield Occurrence(f"{linear.name}: up to {rows} rows, wrong beyond {limit}")


def rows_that_sums_hold(channels: int, itemsize: int) -> int:
    """How many rows M the group-sum buffer of a dynamic int4 linear of K `channels` is enough for.

    It has K elements per group in the output's type, the kernel needs M of int32 (issue 21423):
    it holds while 4 * M <= itemsize * K.
    """
    return channels * itemsize // 4


def dynamic_int4_embedding(program: Program, graph: VulkanGraph, where: Where) -> Occurrences:
    """An int4 embedding in a program of dynamic sequence length."""
    if not takes_calls_of_any_length(program, graph):
        return []
    return [Occurrence(place) for place, _ in operators(graph, "et_vk.embedding_q4gsw")]


def constant_prepacked_twice(program: Program, graph: VulkanGraph, where: Where) -> Occurrences:
    """Constants that more than one operator prepacks: each that reads one does so."""
    readers = Counter(
        value_id
        for operator in graph.operators
        for value_id in set(operator.args[:-1])
        if is_constant(graph, value_id)
    )
    return [
        Occurrence(f"value {value_id}, {tensor_text(graph, value_id)}, read by {count} operators")
        for value_id, count in readers.items()
        if count > 1
    ]


def decomposed_norm_in_fp16(program: Program, graph: VulkanGraph, where: Where) -> Occurrences:
    """`rsqrt` of a float16 tensor in a graph that also takes means: RMS norm in parts."""
    if not any(op.kind == "aten.mean" for op in graph.operators):
        return []
    return [
        Occurrence(f"operator {index}, {operator.kind}")
        for index, operator in enumerate(graph.operators)
        if operator.kind == "aten.rsqrt" and graph.tensor(operator.args[0]).dtype == "float16"
    ]


def constant_beyond_fp16(program: Program, graph: VulkanGraph, where: Where) -> Occurrences:
    """Floating-point constants of a float16 program with values beyond +-65504."""
    if activation_dtype(graph) != "float16":
        return
    for value_id, value in enumerate(graph.values):
        if is_constant(graph, value_id) and isinstance(value, Tensor):
            if value.dtype.startswith("float") and _exceeds_fp16(graph.constant(value_id)):
                yield Occurrence(f"value {value_id}, {tensor_text(graph, value_id)}")
            program.release_memory()


def _exceeds_fp16(constant: np.ndarray) -> bool:
    flat = constant.reshape(-1)
    blocks = (flat[i : i + _BLOCK] for i in range(0, flat.size, _BLOCK))
    return any(bool((np.abs(block.astype(np.float32)) > _FP16_MAX).any()) for block in blocks)


def fp16_weights_without_16bit_storage(
    program: Program, graph: VulkanGraph, where: Where
) -> Occurrences:
    """Floating-point linears with float16 weights, where 16-bit storage is missing."""
    storage = where.gpu.storage_16bit
    if storage:
        return []
    lacking = storage is False
    return [
        Occurrence(linear.name, None if lacking else "possible")
        for linear in find_linears(graph)
        if linear.scheme == OtherScheme.FLOAT
        and graph.tensor(graph.operators[linear.operator].out).dtype == "float16"
    ]


def any_vulkan_program(program: Program, graph: VulkanGraph, where: Where) -> Occurrences:
    """Every program: the defect leaves no trace in the graph."""
    return [Occurrence("the whole program")]


TRIGGERS: dict[str, Trigger] = {
    function.__name__: function
    for function in (
        more_rows_than_sums,
        dynamic_int4_embedding,
        constant_prepacked_twice,
        decomposed_norm_in_fp16,
        constant_beyond_fp16,
        fp16_weights_without_16bit_storage,
        any_vulkan_program,
        beyond_gpu_limits,
        attention_weights_beyond_buffer,
        linear_triggers.groups_summed_wrongly,
        linear_triggers.group_sums_apart,
        linear_triggers.scales_apart,
        linear_triggers.dynamic_linear_of_several_rows,
        linear_triggers.dynamic_linear,
        linear_triggers.integer_sums_in_fp16,
        linear_triggers.small_scales_in_half_buffers,
        linear_triggers.zero_points_float,
        linear_triggers.zero_points_int8_in_fp16,
        linear_triggers.odd_zero_points,
        linear_triggers.weight_only_outputs_not_of_4,
        linear_triggers.weight_only_of_several_rows,
        linear_triggers.linear_of_several_rows,
        linear_triggers.int4_linear,
        linear_triggers.int4_linear_of_batches,
        linear_triggers.weight_only_int8_linear,
        linear_triggers.channel_wise_int4_linear,
        linear_triggers.weight_only_prefill_in_fp16,
        linear_triggers.int4_linear_with_bias,
        linear_triggers.many_rows_in_fp32,
        linear_triggers.activation_scales,
        operator_triggers.unknown_operator,
        operator_triggers.embedding_misread,
        operator_triggers.int4_embedding_width_not_of_32,
        operator_triggers.rotary_width_not_of_8,
        operator_triggers.interleaved_rotary_of_odd_fours,
        operator_triggers.more_key_heads_than_query_heads,
        attention_triggers.attention_in_buffers_not_of_4,
        attention_triggers.attention_in_half_over_long_contexts,
        attention_triggers.long_sums_in_half_buffers,
        attention_triggers.layer_norms_in_half_buffers,
        attention_triggers.fused_attention_in_buffers,
        attention_triggers.caches_of_their_own,
        attention_triggers.attention,
        attention_triggers.context_of_a_cache,
        operator_triggers.gelu,
        operator_triggers.gelu_by_erf,
        operator_triggers.convolution,
        operator_triggers.selects_computed_places,
        operator_triggers.results_not_resized,
        operator_triggers.gathers_from_the_end,
        operator_triggers.choices_by_lower_ranks,
        operator_triggers.textures,
        products_of_padding,
        *METHOD_TRIGGERS,
        *LAYOUT_TRIGGERS,
        *ROW_TRIGGERS,
        *ARGUMENT_TRIGGERS,
        *CONVOLUTION_TRIGGERS,
        *FORM_TRIGGERS,
        *REDUCTION_TRIGGERS,
        *SHAPE_TRIGGERS,
        *STATIC_INT8_TRIGGERS,
        load_triggers.missing_shader,
        load_triggers.inputs_not_together,
        load_triggers.scales_of_no_row,
        load_triggers.scales_not_in_a_texture,
        load_triggers.int4_embedding_layout,
        load_triggers.embedding_not_channels_packed,
        load_triggers.rms_norm_layout,
        load_triggers.rotary_tables,
        load_triggers.attention_shapes,
        load_triggers.attention_options,
        load_triggers.position_of_odd_type,
        load_triggers.index_select_layout,
    )
}

# Those that look at the GPU too.
GPU_TRIGGERS = {
    fp16_weights_without_16bit_storage.__name__,
    beyond_gpu_limits.__name__,
    attention_weights_beyond_buffer.__name__,
}
