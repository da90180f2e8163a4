"""Triggers of what the runtime checks when it loads a program: shapes, layouts, types, options.

Sources: the checks (VK_CHECK_COND, VK_THROW) of ExecuTorch 1.0 to 1.5, by file and line in
`runtimes.toml`.
"""

from collections.abc import Iterator

from quatrain.int4 import CHANNELS_TOGETHER, INPUTS_TOGETHER
from quatrain.program import Plain, Tensor, VulkanGraph
from quatrain.program.vulkan.linear_kernels import INT4_LINEARS, WEIGHT_ONLY_LINEAR
from quatrain.targets.catalogue import release
from quatrain.targets.runtimes import newest_release, shaders_of
from quatrain.targets.triggers.occurrence import (
    Occurrence,
    Occurrences,
    is_constant,
    is_width_packed,
    layout_text,
    named_tensor,
    operators,
    tensors_of,
)

# A tensor's type and that of what it is moved from or to, which may be others than each other.
_CONVERTED = {("float16", "float32"), ("bool", "uint8"), ("uint8", "bool")}
# What is moved at all, in textures and buffers; float64 by no phone.
_MOVED = {"float16", "float32", "int32", "int8", "uint8", "bool"}


def missing_shader(graph: VulkanGraph, runtime: str | None) -> Occurrences:
    """Operators on a storage and type for which the release (none given: the newest) has no
    shader, and tensors that are moved from or to another type than their own, for which none has
    one but from float16 to float32 and back, or of a type that none moves, such as int64."""
    for place, tensor, dtype in _moved_tensors(graph):
        alike = tensor.dtype == dtype and dtype in _MOVED
        if not alike and (tensor.dtype, dtype) not in _CONVERTED:
            yield Occurrence(f"{place}: {tensor.dtype} in a {tensor.storage}, given as {dtype}")
    for index, operator in enumerate(graph.operators):
        built = shaders_of(operator.kind, runtime or newest_release())
        if not built:
            continue
        tensor = named_tensor(graph, operator, built[0].of)
        if tensor is None or tensor.storage == "default":
            continue
        dtype = "uint8" if tensor.dtype == "bool" else tensor.dtype
        if not any(one.takes(tensor.storage, dtype) for one in built):
            what = f"operator {index}, {operator.kind}: {tensor.dtype} in a {tensor.storage}"
            yield Occurrence(what)


def _moved_tensors(graph: VulkanGraph) -> Iterator[tuple[str, Tensor, str]]:
    """(place, tensor, stored type) of each tensor that is copied into or out of the graph: the
    inputs and results of a call, and prepacked constants."""
    for what, ids in (("input", graph.inputs), ("result", graph.outputs)):
        for index, tensor in enumerate(graph.values[i] for i in ids):
            if isinstance(tensor, Tensor) and not tensor.layout.startswith("int8_"):
                dtype = tensor.dtype if tensor.staging_dtype == "unset" else tensor.staging_dtype
                yield f"{what} {index}", tensor, dtype
    for place, operator, constant in tensors_of(graph, ("et_vk.prepack",)):
        made = graph.values[operator.out]
        if isinstance(made, Tensor) and not made.layout.startswith("int8_"):
            yield place, made, constant.dtype


def inputs_not_together(graph: VulkanGraph, runtime: str | None) -> Occurrences:
    """Int4 linears whose input channels are not a multiple of 4, or whose weights' columns, padding
    included, are not one of what the release (none given: the newest) packs them by."""
    for place, operator, x in tensors_of(graph, INT4_LINEARS):
        by = _inputs_together(operator.kind, runtime or newest_release())
        weights = named_tensor(graph, operator, "weights")
        stored = 2 * weights.shape[-1] if weights else 0
        for count, of in ((x.shape[-1], CHANNELS_TOGETHER), (stored, by)):
            if count % of:
                yield Occurrence(f"{place}: {count} input channels, not a multiple of {of}")
                break


def _inputs_together(kind: str, runtime: str) -> int:
    of_its_own = kind == WEIGHT_ONLY_LINEAR and release(runtime) >= release("1.4")
    return CHANNELS_TOGETHER if of_its_own else INPUTS_TOGETHER


def scales_of_no_row(graph: VulkanGraph) -> Occurrences:
    """`choose_qparams_affine` over other blocks than whole rows, or of no contiguous matrix."""
    for place, operator, x in tensors_of(graph, ("torchao.choose_qparams_affine",)):
        block = graph.values[operator.named_args["block_size"]]
        if isinstance(block, Plain) and isinstance(block.value, list | tuple):
            whole_rows = (*(1 for _ in x.shape[:-1]), x.shape[-1])
            if tuple(block.value)[-len(x.shape) :] != whole_rows:
                yield Occurrence(f"{place}: blocks of {list(block.value)}")
        if any(size > 1 for size in x.shape[:-2]):
            yield Occurrence(f"{place}: of {list(x.shape)}")
        elif not is_width_packed(x) or (x.storage == "buffer" and x.shape[-1] % 4):
            yield Occurrence(f"{place}: {x.shape[-1]} wide, {layout_text(x)}")


def scales_not_in_a_texture(graph: VulkanGraph) -> Occurrences:
    """Scales or zero points of activations in a buffer; a texture may have any layout."""
    for place, operator in operators(graph, "torchao.choose_qparams_affine"):
        for value_id in graph.outputs_of(operator):
            tensor = graph.tensor(value_id)
            if tensor.storage == "buffer":
                yield Occurrence(f"{place}: {layout_text(tensor)}")


def int4_embedding_layout(graph: VulkanGraph) -> Occurrences:
    """`embedding_q4gsw` with indices or result that are not width-packed."""
    return _packed_otherwise(graph, "et_vk.embedding_q4gsw", ("indices", "out"), "width_packed")


def embedding_not_channels_packed(graph: VulkanGraph) -> Occurrences:
    """`aten.embedding` with indices or a result that are not channels-packed, which 1.0
    requires."""
    return _packed_otherwise(graph, "aten.embedding", ("indices", "out"), "channels_packed")


def rms_norm_layout(graph: VulkanGraph) -> Occurrences:
    """`rms_norm` in textures that are not width-packed."""
    for place, operator in operators(graph, "et_vk.rms_norm"):
        tensors = [named_tensor(graph, operator, name) for name in ("x", "out")]
        odd = [t for t in tensors if t and t.storage != "buffer" and not is_width_packed(t)]
        if odd:
            yield Occurrence(f"{place}: {layout_text(odd[0])}")


def position_of_odd_type(graph: VulkanGraph) -> Occurrences:
    """`select_as_symint` of what is neither int32 nor int64, or no input of the graph: it is read
    where the call put it."""
    for place, operator, x in tensors_of(graph, ("et_vk.select_as_symint",)):
        if x.dtype not in ("int32", "int64"):
            yield Occurrence(f"{place}: {x.dtype}")
        elif operator.args[0] not in graph.inputs:
            yield Occurrence(f"{place}: value {operator.args[0]}, which is no input")


def index_select_layout(graph: VulkanGraph) -> Occurrences:
    """`index_select` with input, indices or result that are not channels-packed, or with indices
    that are a constant as it is stored."""
    kind, arguments = "aten.index_select", ("x", "index", "out")
    for place, operator in operators(graph, kind):
        if is_constant(graph, operator.named_args["index"]):
            yield Occurrence(f"{place}: indices that are not prepacked")
    yield from _packed_otherwise(graph, kind, arguments, "channels_packed")


def _packed_otherwise(
    graph: VulkanGraph, kind: str, arguments: tuple[str, ...], layout: str
) -> Occurrences:
    """The operators of this kind with one of `arguments` in another layout."""
    return [
        Occurrence(f"{place}: {name} {layout_text(tensor)}")
        for place, operator in operators(graph, kind)
        for name in arguments
        if (tensor := named_tensor(graph, operator, name))
        and tensor.layout not in (layout, "default")
    ]
