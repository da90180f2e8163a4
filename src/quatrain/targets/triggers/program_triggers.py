"""Triggers of defects that do not belong to one kind of operator."""

import math
from collections import Counter

import numpy as np

from quatrain.program import Program, Tensor, VulkanGraph
from quatrain.program.call_lengths import takes_calls_of_any_length
from quatrain.program.inspect.linears import find_linears
from quatrain.program.inspect.report import activation_dtype
from quatrain.program.inspect.sizes import is_held
from quatrain.program.vulkan.linear_kernels import DYNAMIC_LINEAR, OtherScheme
from quatrain.targets.catalogue import GpuProfile
from quatrain.targets.triggers.linear_triggers import linears
from quatrain.targets.triggers.occurrence import (
    Occurrence,
    Occurrences,
    is_constant,
    operators,
    tensor_text,
)

_FP16_MAX = 65504.0
_BLOCK = 1 << 22  # elements of a constant looked at together


def more_rows_than_sums(graph: VulkanGraph) -> Occurrences:
    """Dynamic int4 linears that may see more rows than their scratch buffer holds."""
    for linear, operator in linears(graph, DYNAMIC_LINEAR):
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


def dynamic_int4_embedding(program: Program, graph: VulkanGraph) -> Occurrences:
    """An int4 embedding in a program of dynamic sequence length."""
    if not takes_calls_of_any_length(program, graph):
        return []
    return [Occurrence(place) for place, _ in operators(graph, "et_vk.embedding_q4gsw")]


def constant_prepacked_twice(graph: VulkanGraph) -> Occurrences:
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


def constant_of_a_part(graph: VulkanGraph) -> Occurrences:
    """Constants of which more bytes are stored than their tensors have."""
    for index, operator in enumerate(graph.operators):
        for value_id in graph.inputs_of(operator):
            stored = graph.stored(value_id)
            needed = graph.tensor(value_id).nbytes if stored else 0
            if stored and stored.nbytes > needed:
                text = tensor_text(graph, value_id)
                where = f"operator {index}, {operator.kind}: {text} of {needed} bytes"
                yield Occurrence(f"{where}, {stored.nbytes} are stored")


def decomposed_norm_in_fp16(graph: VulkanGraph) -> Occurrences:
    """`rsqrt` of a float16 tensor in a graph that also takes means: RMS norm in parts."""
    if not any(op.kind == "aten.mean" for op in graph.operators):
        return []
    return [
        Occurrence(f"operator {index}, {operator.kind}")
        for index, operator in enumerate(graph.operators)
        if operator.kind == "aten.rsqrt" and graph.tensor(operator.args[0]).dtype == "float16"
    ]


def constant_beyond_fp16(program: Program, graph: VulkanGraph) -> Occurrences:
    """Floating-point constants of a float16 program with values beyond +-65504."""
    if activation_dtype(graph) != "float16":
        return
    for value_id, value in enumerate(graph.values):
        if isinstance(value, Tensor) and is_held(program, graph, value_id):
            if value.dtype.startswith("float") and _exceeds_fp16(graph.constant(value_id)):
                yield Occurrence(f"value {value_id}, {tensor_text(graph, value_id)}")
            program.release_memory()


def _exceeds_fp16(constant: np.ndarray) -> bool:
    flat = constant.reshape(-1)
    blocks = (flat[i : i + _BLOCK] for i in range(0, flat.size, _BLOCK))
    return any(bool((np.abs(block.astype(np.float32)) > _FP16_MAX).any()) for block in blocks)


def fp16_weights_without_16bit_storage(graph: VulkanGraph, gpu: GpuProfile) -> Occurrences:
    """Floating-point linears with float16 weights, where 16-bit storage is missing."""
    storage = gpu.storage_16bit
    if storage:
        return []
    lacking = storage is False
    return [
        Occurrence(linear.name, None if lacking else "possible")
        for linear in find_linears(graph)
        if linear.scheme == OtherScheme.FLOAT
        and graph.tensor(graph.operators[linear.operator].out).dtype == "float16"
    ]


def any_vulkan_program(graph: VulkanGraph) -> Occurrences:
    """Every program: the defect leaves no trace in the graph."""
    return [Occurrence("the whole program")]
