"""Looks for each hazard's trigger in a program: where it fires, and how sure that is.

A trigger takes the program, its Vulkan graph and a device (None: any), and returns the places
where it fires; the empty list where it does not.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from quatrain.program import Operator, Program, Tensor, VulkanGraph
from quatrain.program.inspect.linears import find_linears
from quatrain.program.inspect.report import activation_dtype
from quatrain.program.inspect.sizes import cache_values
from quatrain.targets.catalogue import Device

# What a device whose figure is unknown surely has: the Vulkan specification's minimum for
# buffers, ExecuTorch's conservative limit (`small_texture_limits`) for images.
SURE_STORAGE_BUFFER = 2**27
SURE_IMAGE = 2048
_FP16_MAX = 65504.0
_BLOCK = 1 << 22  # elements of a constant looked at together


@dataclass(frozen=True)
class Occurrence:
    """Where a trigger fires; `certainty` overrides the hazard's where this place is less sure,
    `remedy` where it needs another."""

    where: str
    certainty: str | None = None
    remedy: str | None = None


_IN_A_BUFFER = "export again with --target DEVICE, which keeps so large a tensor in a buffer"

Trigger = Callable[[Program, VulkanGraph, Device | None], list[Occurrence]]


def zero_points_float(
    program: Program, graph: VulkanGraph, device: Device | None
) -> list[Occurrence]:
    """Dynamic int4 linears whose zero points are float16 or float32."""
    return _zero_points(graph, ("float16", "float32"))


def zero_points_int8_in_fp16(
    program: Program, graph: VulkanGraph, device: Device | None
) -> list[Occurrence]:
    """Dynamic int4 linears whose zero points are int8 while the activations are float16."""
    return _zero_points(graph, ("int8",)) if activation_dtype(graph) == "float16" else []


def _zero_points(graph: VulkanGraph, dtypes: tuple[str, ...]) -> list[Occurrence]:
    return [
        Occurrence(name)
        for name, operator in _dynamic_linears(graph)
        if graph.tensor(operator.named_args["input_zero_points"]).dtype in dtypes
    ]


def more_rows_than_sums(
    program: Program, graph: VulkanGraph, device: Device | None
) -> list[Occurrence]:
    """Dynamic int4 linears that may see more rows than their scratch buffer holds."""
    places = []
    for name, operator in _dynamic_linears(graph):
        x = graph.tensor(operator.named_args["x"])
        rows, channels = math.prod(x.shape[:-1]), x.shape[-1]
        limit = rows_that_sums_hold(channels, np.dtype(graph.tensor(operator.out).dtype).itemsize)
        if rows > limit:
            places.append(Occurrence(f"{name}: up to {rows} rows, wrong beyond {limit}"))
    return places


def rows_that_sums_hold(channels: int, itemsize: int) -> int:
    """How many rows M the group-sum buffer of a dynamic int4 linear of K `channels` is enough for.

    It has K elements per group in the output's type, the kernel needs M of int32 (issue 21423):
    it holds while 4 * M <= itemsize * K.
    """
    return channels * itemsize // 4


def _dynamic_linears(graph: VulkanGraph) -> list[tuple[str, Operator]]:
    return [
        (linear.name, graph.operators[linear.operator])
        for linear in find_linears(graph)
        if linear.kernel == "et_vk.linear_dq8ca_q4gsw"
    ]


def dynamic_int4_embedding(
    program: Program, graph: VulkanGraph, device: Device | None
) -> list[Occurrence]:
    """An int4 embedding in a program of dynamic sequence length."""
    dynamic = any(op.kind == "sym_size" for op in graph.operators) or any(
        any(d.compile_specs.get("require_dynamic_shapes", b"")) for d in program.delegates
    )
    return _operators(graph, "et_vk.embedding_q4gsw") if dynamic else []


def constant_prepacked_twice(
    program: Program, graph: VulkanGraph, device: Device | None
) -> list[Occurrence]:
    """Constants that more than one operator prepacks: each that reads one does so."""
    readers = Counter(
        value_id
        for operator in graph.operators
        for value_id in set(operator.args[:-1])
        if _is_constant(graph, value_id)
    )
    return [
        Occurrence(f"value {value_id}, {_text(graph, value_id)}, read by {count} operators")
        for value_id, count in readers.items()
        if count > 1
    ]


def decomposed_norm_in_fp16(
    program: Program, graph: VulkanGraph, device: Device | None
) -> list[Occurrence]:
    """`rsqrt` of a float16 tensor in a graph that also takes means: RMS norm in parts."""
    if not any(op.kind == "aten.mean" for op in graph.operators):
        return []
    return [
        Occurrence(f"operator {index}, {operator.kind}")
        for index, operator in enumerate(graph.operators)
        if operator.kind == "aten.rsqrt" and graph.tensor(operator.args[0]).dtype == "float16"
    ]


def constant_beyond_fp16(
    program: Program, graph: VulkanGraph, device: Device | None
) -> list[Occurrence]:
    """Floating-point constants of a float16 program with values beyond +-65504."""
    if activation_dtype(graph) != "float16":
        return []
    places = []
    for value_id, value in enumerate(graph.values):
        if _is_constant(graph, value_id) and isinstance(value, Tensor):
            if value.dtype.startswith("float") and _exceeds_fp16(graph.constant(value_id)):
                places.append(Occurrence(f"value {value_id}, {_text(graph, value_id)}"))
            program.release_memory()
    return places


def _exceeds_fp16(constant: np.ndarray) -> bool:
    flat = constant.reshape(-1)
    blocks = (flat[i : i + _BLOCK] for i in range(0, flat.size, _BLOCK))
    return any(bool((np.abs(block.astype(np.float32)) > _FP16_MAX).any()) for block in blocks)


def fp16_weights_without_16bit_storage(
    program: Program, graph: VulkanGraph, device: Device | None
) -> list[Occurrence]:
    """Floating-point linears with float16 weights, where 16-bit storage is missing."""
    if device is not None and device.storage_16bit:
        return []
    lacking = device is not None and device.storage_16bit is False
    return [
        Occurrence(linear.name, None if lacking else "possible")
        for linear in find_linears(graph)
        if linear.scheme == "float"
        and graph.tensor(graph.operators[linear.operator].out).dtype == "float16"
    ]


def any_vulkan_program(
    program: Program, graph: VulkanGraph, device: Device | None
) -> list[Occurrence]:
    """Every program: the defect leaves no trace in the graph."""
    return [Occurrence("the whole program")]


def weight_only_int8_linear(
    program: Program, graph: VulkanGraph, device: Device | None
) -> list[Occurrence]:
    """Linears that lack their shader."""
    return _operators(graph, "aten._weight_int8pack_mm", "et_vk.linear_qcs8w", "etvk.linear_qcs8w")


def beyond_device_limits(
    program: Program, graph: VulkanGraph, device: Device | None
) -> list[Occurrence]:
    """Tensors larger than a storage buffer or an image may be on `device`.

    Where a figure is unknown, what exceeds the sure minimum is possible, not certain.
    """
    buffer = device.max_storage_buffer if device else None
    image = device.max_image_3d if device else None
    places = []
    for value_id, value in enumerate(graph.values):
        if not isinstance(value, Tensor):
            continue
        where = f"value {value_id}, {_text(graph, value_id)}"
        if value.storage == "texture3d" and value.constant is None:
            largest = max(image_extents(value))
            if largest > (image or SURE_IMAGE):
                where += f": an image of {largest} texels"
                places.append(Occurrence(where, None if image else "possible", _IN_A_BUFFER))
        elif value.nbytes > (buffer or SURE_STORAGE_BUFFER):
            where += f": {value.nbytes} bytes"
            remedy = _smaller_buffer(graph, value_id)
            places.append(Occurrence(where, None if buffer else "possible", remedy))
    return places


def _smaller_buffer(graph: VulkanGraph, value_id: int) -> str | None:
    """What makes a tensor smaller; None where nothing in the program does."""
    if not _is_constant(graph, value_id) or value_id in cache_values(graph):
        return "export again with a shorter --max-seq-len"
    readers = {operator.kind for operator in graph.operators if value_id in operator.args[:-1]}
    if "aten.embedding" in readers:
        return "quantize with --embedding int4 and export again"
    if readers & {"aten.linear", "aten.mm", "aten.addmm"}:
        return "quantize with --output-layer int4 and export again"
    return None


def image_extents(tensor: Tensor) -> tuple[int, int, int]:
    """Width, height and depth of a 3-D image that holds `tensor`, four elements to a texel."""
    batch, channels, height, width = ((1,) * 4 + tensor.shape)[-4:]
    match tensor.layout:
        case "channels_packed":
            return width, height, -(-channels // 4) * batch
        case "height_packed":
            return width, -(-height // 4), channels * batch
        case _:
            return -(-width // 4), height, channels * batch


def work_outside_delegate(
    program: Program, graph: VulkanGraph, device: Device | None
) -> list[Occurrence]:
    """Operators outside the delegate, or more than one delegate call."""
    steps = [step for method in program.methods.values() for step in method.instructions]
    kernels = Counter(str(step.target) for step in steps if step.kind == "kernel")
    places = [Occurrence(f"{name}, {count} times") for name, count in kernels.items()]
    calls = sum(step.kind == "delegate" for step in steps)
    return places + ([Occurrence(f"{calls} delegate calls")] if calls > 1 else [])


def _operators(graph: VulkanGraph, *kinds: str) -> list[Occurrence]:
    return [
        Occurrence(f"operator {index}, {operator.kind}")
        for index, operator in enumerate(graph.operators)
        if operator.kind in kinds
    ]


def _is_constant(graph: VulkanGraph, value_id: int) -> bool:
    value = graph.values[value_id]
    return isinstance(value, Tensor) and value.constant is not None


def _text(graph: VulkanGraph, value_id: int) -> str:
    tensor = graph.tensor(value_id)
    return f"{tensor.dtype}{list(tensor.shape)}"


TRIGGERS: dict[str, Trigger] = {
    function.__name__: function
    for function in (
        zero_points_float,
        zero_points_int8_in_fp16,
        more_rows_than_sums,
        dynamic_int4_embedding,
        constant_prepacked_twice,
        decomposed_norm_in_fp16,
        constant_beyond_fp16,
        fp16_weights_without_16bit_storage,
        any_vulkan_program,
        weight_only_int8_linear,
        beyond_device_limits,
        work_outside_delegate,
    )
}

# Those whose places depend on the device.
DEVICE_TRIGGERS = {
    fp16_weights_without_16bit_storage.__name__,
    beyond_device_limits.__name__,
}
