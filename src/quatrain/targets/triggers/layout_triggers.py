"""Triggers of storages, layouts and memory that an operator does not take: exporters see to them,
an edit of a program may not. Measured operator by operator on ExecuTorch's runtime."""

from quatrain.program import Operator, Program, Tensor, VulkanGraph
from quatrain.program.int4_constants import misread_types
from quatrain.program.plan.method_memory import method_memory_problems
from quatrain.program.vulkan.elementwise import ELEMENTWISE
from quatrain.program.vulkan.linear_kernels import CHOOSE_QPARAMS, DYNAMIC_LINEAR, INT4_LINEARS
from quatrain.program.vulkan.memory import memory_conflicts
from quatrain.targets.triggers.occurrence import (
    CACHED_ATTENTION,
    Occurrence,
    Occurrences,
    is_constant,
    operators,
    tensor_text,
)

# What copies from the one storage to the other.
_COPIES = {"aten.clone", "aten._to_copy", "dim_order_ops._to_dim_order_copy", "et_vk.prepack"}
_QUANTIZING = ("torchao.", "quantized_decomposed.")  # have scales of a type of their own
_NO_TENSORS_MADE = {"sym_size", "et_vk.select_as_symint"}
# Operator -> its arguments that are textures of any layout, or that nothing is written to.
_APART = {DYNAMIC_LINEAR: ("input_scales", "input_zero_points"), "update_cache": ("out",)}
# What the runtime wants in both storages.
_OF_BOTH = {
    "aten.grid_sampler_2d", "aten.native_group_norm", "et_vk.apply_rotary_emb_interleaved",
}  # fmt: skip
_WIDTH_PACKED = {
    *INT4_LINEARS, "et_vk.apply_rotary_emb", "et_vk.apply_rotary_emb_hf",
    *CACHED_ATTENTION, "update_cache", "aten.bmm", "aten.mm", "aten.addmm", "aten.linear",
}  # fmt: skip
# Operators whose results are packed along the dimension that what they read is packed along.
_ALIKE = {
    "aten.add", "aten.sub", "aten.mul", "aten.div", "aten.minimum", "aten.eq", "aten.lt",
    "aten.le", "aten.gt", "aten.ge", "aten.logical_and", "aten.permute_copy",
    "aten.unsqueeze_copy",
}  # fmt: skip
# Operators that the runtime takes with textures of several layouts, texel by texel.
_BY_TEXEL = {
    "aten.cat", "aten.sum", "aten.mean", "aten.amax", "aten.amin", "aten._softmax",
    "aten._log_softmax", "aten.repeat", "aten.expand_copy", "aten.squeeze_copy",
    "aten.constant_pad_nd", "aten.gather", *ELEMENTWISE,
} - {*_ALIKE, *_COPIES, "aten.alias_copy"}  # fmt: skip


_ARITHMETIC = ("aten.add", "aten.sub", "aten.mul", "aten.div", "aten.minimum", "aten.pow")
_COMPARISONS = ("aten.eq", "aten.ne", "aten.lt", "aten.le", "aten.gt", "aten.ge")
_OF_CONDITIONS = ("aten.where", "aten.logical_and", "aten.logical_or", "aten.logical_not")
_CONDITIONS = ("bool", "uint8")  # which are one type for a shader
# What writes numbers as it reads them, without a look at what they are.
_MOVING = {
    "aten.slice_copy", "aten.select_copy", "aten.view_copy", "aten.expand_copy", "aten.repeat",
    "aten.permute_copy", "aten.permute", "aten.transpose_copy", "aten.t_copy",
    "aten.unsqueeze_copy", "aten.squeeze_copy", "aten.cat", "aten.flip",
    "aten.split_with_sizes_copy", "aten.split_copy", "aten.constant_pad_nd",
}  # fmt: skip


def memory_still_read(program: Program, graph: VulkanGraph) -> Occurrences:
    """Values written into the memory of others that are still to be read, in a delegate or in the
    method that calls it."""
    problems = method_memory_problems(program) if graph is program.graphs[0] else []
    return [Occurrence(problem) for problem in problems] + [
        Occurrence(
            f"value {second}, {tensor_text(graph, second)}, is written over value {first}, "
            f"{tensor_text(graph, first)}"
        )
        for first, second in memory_conflicts(graph, in_place=True)
    ]


def mixed_storages(graph: VulkanGraph) -> Occurrences:
    """Operators some of whose tensors are in buffers and some in textures; int8 ones packed in
    blocks (`int8_4h4w`) lie in buffers, whatever the others are in."""
    for index, operator in enumerate(graph.operators):
        kind = operator.kind
        if kind in _COPIES | _NO_TENSORS_MADE | _OF_BOTH or kind == CHOOSE_QPARAMS:
            continue
        placed = _placed(graph, operator)
        storages = {one.storage for one in placed if not one.layout.startswith("int8_")}
        if len(storages) > 1:
            yield Occurrence(f"operator {index}, {kind}: {' and '.join(sorted(storages))}")


def not_width_packed(graph: VulkanGraph) -> Occurrences:
    """Linears, products, rotary embeddings and attention in textures of another layout, and
    operators that write texels as they read them, in textures of several."""
    for place, operator in operators(graph, *_WIDTH_PACKED):
        if others := _layouts(graph, operator) - {"width_packed"}:
            yield Occurrence(f"{place}: {', '.join(sorted(others))}")
    yield from _of_several_layouts(graph, _BY_TEXEL)


def layouts_differ(graph: VulkanGraph) -> Occurrences:
    """Operators that take tensors of one layout, in textures of several."""
    return _of_several_layouts(graph, _ALIKE)


def _of_several_layouts(graph: VulkanGraph, kinds: set[str]) -> Occurrences:
    for place, operator in operators(graph, *kinds):
        if len(layouts := _layouts(graph, operator)) > 1:
            yield Occurrence(f"{place}: {' and '.join(sorted(layouts))}")


def types_differ(graph: VulkanGraph) -> Occurrences:
    """Operators of several floating-point types, but what converts them or quantizes; arithmetic
    of two types, and numbers that are moved to another; conditions that are not bool; int4 linears
    whose scales, sums or biases are of another type than they are read in, and scales and zero
    points of activations that are of another than those."""
    for place, operator in operators(graph, *INT4_LINEARS):
        for types in misread_types(graph, operator):
            yield Occurrence(f"{place}: {types}")
    for place, operator in operators(graph, CHOOSE_QPARAMS):
        values = [graph.values[i] for i in (operator.args[0], *graph.outputs_of(operator))]
        dtypes = {one.dtype for one in values if isinstance(one, Tensor)}
        if len(floats := sorted(one for one in dtypes if one.startswith("float"))) > 1:
            yield Occurrence(f"{place}: {' and '.join(floats)}")
    for place, operator in operators(graph, *_COMPARISONS, *_OF_CONDITIONS):
        condition = operator.out if operator.kind in _COMPARISONS else operator.args[0]
        value = graph.values[condition]
        if isinstance(value, Tensor) and value.dtype not in _CONDITIONS:
            yield Occurrence(f"{place}: a condition in {value.dtype}")
    for index, operator in enumerate(graph.operators):
        dtypes = _types(graph, operator)
        if len(dtypes) > 1:
            what = " and ".join(sorted(dtypes))
            yield Occurrence(f"operator {index}, {operator.kind}: {what}")


def _types(graph: VulkanGraph, operator: Operator) -> set[str]:
    """Those that an operator must have alike: of what it reads and its first result. Constants
    that it packs itself may be of others."""
    kind, read = operator.kind, graph.inputs_of(operator)
    if kind in _COPIES or kind.startswith(_QUANTIZING):
        return set()
    if kind in INT4_LINEARS:
        read = [operator.named_args["x"]]
    of_any = kind in (*_ARITHMETIC, *_COMPARISONS)
    made = [] if kind in _COMPARISONS else graph.outputs_of(operator)[:1]
    found = [graph.values[i] for i in (*read, *made) if of_any or not is_constant(graph, i)]
    dtypes = {one.dtype for one in found if isinstance(one, Tensor)}
    if kind in _MOVING:
        return dtypes if dtypes - {*_CONDITIONS} else set()
    return {dtype for dtype in dtypes if of_any or dtype.startswith("float")}


def _layouts(graph: VulkanGraph, operator: Operator) -> set[str]:
    """Of the operator's textures, where they are stated."""
    placed = [tensor for tensor in _placed(graph, operator) if tensor.storage != "buffer"]
    return {tensor.layout for tensor in placed} - {"default"}


def _placed(graph: VulkanGraph, operator: Operator) -> list[Tensor]:
    """The operator's tensors whose storage is stated, but for `_APART` and constants: those are put
    where the operator wants them as the program is loaded."""
    apart = {operator.named_args.get(name) for name in _APART.get(operator.kind, ())}
    values = [
        graph.values[i]
        for i in graph.flat(operator.args)
        if i not in apart and not is_constant(graph, i)
    ]
    return [one for one in values if isinstance(one, Tensor) and one.storage != "default"]
