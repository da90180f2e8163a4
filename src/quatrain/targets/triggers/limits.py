"""Triggers of tensors and images that are larger than a GPU can bind."""

import math
from typing import Any

from quatrain.multiples import up_to
from quatrain.program import Tensor, VulkanGraph
from quatrain.program.inspect.sizes import cache_values
from quatrain.targets.catalogue import GpuProfile
from quatrain.targets.runtimes import needs_older_forms
from quatrain.targets.triggers.occurrence import (
    CACHED_ATTENTION,
    Occurrence,
    Occurrences,
    attention_keys,
    is_constant,
    operators,
    tensor_text,
)

# What a GPU whose figure is unknown surely has: the Vulkan specification's minimum for
# buffers, ExecuTorch's conservative limit (`small_texture_limits`) for images.
SURE_STORAGE_BUFFER = 2**27
SURE_IMAGE = 2048
_IN_A_BUFFER = "export again with --target DEVICE, which keeps so large a tensor in a buffer"


def beyond_gpu_limits(graph: VulkanGraph, gpu: GpuProfile, runtime: str | None) -> Occurrences:
    """Tensors larger than a storage buffer or an image may be on the GPU.

    Where a figure is unknown, what exceeds the sure minimum is possible, not certain.
    """
    buffer, image = gpu.max_storage_buffer, gpu.max_image_3d
    for value_id, value in enumerate(graph.values):
        if not isinstance(value, Tensor):
            continue
        place = f"value {value_id}, {tensor_text(graph, value_id)}"
        if value.storage == "texture3d" and value.constant is None:
            largest = max(image_extents(value))
            if largest > (image or SURE_IMAGE):
                place += f": an image of {largest} texels"
                yield Occurrence(place, None if image else "possible", _IN_A_BUFFER)
        elif value.nbytes > (buffer or SURE_STORAGE_BUFFER):
            place += f": {value.nbytes} bytes"
            remedy = _smaller_buffer(graph, value_id, runtime)
            yield Occurrence(place, None if buffer else "possible", remedy)


def attention_weights_beyond_buffer(graph: VulkanGraph, gpu: GpuProfile) -> Occurrences:
    """Attention in buffers whose weights, heads x tokens x context, exceed a storage buffer.

    They are no value of the graph: the runtime makes them, each of the two lengths rounded up
    to a multiple of 4.
    """
    largest = gpu.max_storage_buffer
    for place, operator in operators(graph, *CACHED_ATTENTION):
        query, cache = graph.tensor(operator.named_args["q"]), attention_keys(graph, operator)
        if query.storage != "buffer" or not isinstance(cache, Tensor) or len(query.shape) < 3:
            continue
        tokens, context = (up_to(each.shape[-3], 4) for each in (query, cache))
        itemsize = query.nbytes // math.prod(query.shape)
        of_a_token, most = query.shape[-2] * context * itemsize, largest or SURE_STORAGE_BUFFER
        if tokens * of_a_token > most:
            said = f"{place}: {tokens * of_a_token} bytes for calls of {tokens} tokens"
            fitting = most // of_a_token // 4 * 4
            remedy = (
                f"feed prompts in parts of {fitting} tokens, or export again with "
                f"{{prefill_chunk_size:{fitting}}}"
                if fitting
                else "export again with a smaller {max_seq_len}"
            )
            yield Occurrence(said, None if largest else "possible", remedy)


def _smaller_buffer(graph: VulkanGraph, value_id: int, runtime: str | None) -> str | None:
    """What makes a tensor smaller; None if nothing in the program does."""
    if not is_constant(graph, value_id) or value_id in cache_values(graph):
        return "export again with a shorter {max_seq_len}"
    readers = {operator.kind for operator in graph.operators if value_id in operator.args[:-1]}
    if "aten.embedding" in readers:
        if needs_older_forms(runtime):
            return f"quantize with {{embedding:int4}} and export for a runtime later than {runtime}"
        return "quantize with {embedding:int4} and export again"
    if readers & {"aten.linear", "aten.mm", "aten.addmm"}:
        return "quantize with {output_layer:int4} and export again"
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


def partitioner_limits(profile: GpuProfile, reasons: list[str]) -> dict[str, Any]:
    """Options for ExecuTorch's partitioner: the limits that are known (bytes, texels); for images,
    else a size that is sure. Says why in `reasons`."""
    limits: dict[str, Any] = {}
    if profile.max_storage_buffer:
        limits["buffer_limit"] = profile.max_storage_buffer
        reasons.append(
            f"buffers up to {profile.max_storage_buffer} bytes: "
            f"{profile.sources['max_storage_buffer']}"
        )
    if profile.max_image_3d:
        limits["texture_limits"] = (profile.max_image_3d,) * 3
        reasons.append(
            f"images up to {profile.max_image_3d} texels: {profile.sources['max_image_3d']}"
        )
    else:
        limits["texture_limits"] = (SURE_IMAGE,) * 3
        reasons.append(
            f"images up to {SURE_IMAGE} texels, larger tensors in buffers: ExecuTorch's "
            f"conservative limit, since no source gives that of {profile.name}"
        )
    return limits
