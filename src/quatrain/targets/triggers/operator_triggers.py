"""Triggers of defects of embeddings and smaller operators."""

import math

from quatrain.int4 import EMBEDDED_TOGETHER
from quatrain.program import Operator, Program, Tensor, VulkanGraph
from quatrain.program.call_lengths import takes_calls_of_any_length
from quatrain.program.edit.embedding_layout import misread_embeddings
from quatrain.program.edit.resized_results import (
    is_blitted_buffer,
    is_read_in_call_sizes,
    is_resized,
)
from quatrain.program.inspect.call_shapes import CallShapes
from quatrain.program.vulkan.def_use import DefUse
from quatrain.targets.runtimes import newest_release, unknown_operators
from quatrain.targets.triggers.occurrence import (
    Occurrence,
    Occurrences,
    fixed_value,
    is_constant,
    longest_call,
    operators,
    tensor_text,
    tensors_of,
)

_COPIES = ("et_vk.prepack", "aten.clone", "aten._to_copy")
_FEWEST_CHANNELS, _MOST_CHANNELS = 168, 192  # that an Adreno 840 was seen to convolve wrongly


def unknown_operator(graph: VulkanGraph, runtime: str | None) -> Occurrences:
    """What the release does not know: operators, numbers of arguments; none given: the newest."""
    return [Occurrence(what) for what in unknown_operators(graph, runtime or newest_release())]


def embedding_misread(graph: VulkanGraph) -> Occurrences:
    """`aten.embedding` of several tokens with indices or result not width-packed in a texture."""
    return [
        Occurrence(
            f"{_place(graph, operator)}: result {graph.tensor(operator.out).layout} "
            f"in a {graph.tensor(operator.out).storage}"
        )
        for operator in misread_embeddings(graph)
        if math.prod(graph.tensor(operator.named_args["indices"]).shape) > 1
    ]


def int4_embedding_width_not_of_32(graph: VulkanGraph) -> Occurrences:
    """Int4 embeddings whose width is not a multiple of what is read together."""
    widths = [
        (place, 2 * graph.tensor(operator.named_args["weights"]).shape[-1])
        for place, operator in operators(graph, "et_vk.embedding_q4gsw")
    ]
    return [
        Occurrence(f"{place}: width {width}")
        for place, width in widths
        if width % EMBEDDED_TOGETHER
    ]


def gelu(graph: VulkanGraph) -> Occurrences:
    """`aten.gelu`."""
    return [Occurrence(place) for place, _ in operators(graph, "aten.gelu")]


def gelu_by_erf(graph: VulkanGraph) -> Occurrences:
    """`aten.gelu` that asks for the exact function."""
    return [
        Occurrence(place)
        for place, operator in operators(graph, "aten.gelu")
        if len(operator.args) > 2 and graph.plain(operator.args[1]) == "none"
    ]


def convolution(graph: VulkanGraph) -> Occurrences:
    """Convolutions of 168 to 192 output channels; others are possible, at a low rate."""
    kinds = ("aten.convolution", "et_vk.conv_with_clamp", "et_vk.conv2d_gemm")
    for place, operator in operators(graph, *kinds):
        weight = graph.values[operator.args[1]]
        channels = weight.shape[0] if isinstance(weight, Tensor) else 0
        sure = _FEWEST_CHANNELS <= channels <= _MOST_CHANNELS
        yield Occurrence(f"{place}: {channels} output channels", None if sure else "possible")


def selects_computed_places(program: Program, graph: VulkanGraph) -> Occurrences:
    """`index_select` by several indices that the graph computes or is given; and along another
    dimension than one that changes with the call."""
    longest = longest_call(program, graph)
    for place, operator, x in tensors_of(graph, ("aten.index_select",)):
        index, dim = operator.named_args["index"], fixed_value(graph, operator, 1) or 0
        computed = not _is_fixed(graph, index) and math.prod(graph.tensor(index).shape) > 1
        others = [size for at, size in enumerate(x.shape) if at != dim % max(1, len(x.shape))]
        if computed or (longest > 1 and longest in others):
            yield Occurrence(f"{place}: of {list(x.shape)} along dimension {dim}")


def results_not_resized(program: Program, graph: VulkanGraph) -> Occurrences:
    """Splits, squeezes of the first dimension in textures, conversions between floating-point types
    and embeddings of channels-packed tokens, in programs that take calls of any length; but those
    whose results have fixed sizes, or are only seen in a call's sizes."""
    if not takes_calls_of_any_length(program, graph):
        return []
    def_use, one = DefUse(graph), CallShapes(graph, 1, longest=longest_call(program, graph))
    return [
        Occurrence(f"operator {index}, {operator.kind}")
        for index, operator in enumerate(graph.operators)
        if not is_resized(graph, operator, one)
        and (
            operator.kind == "aten.squeeze_copy"
            or not is_read_in_call_sizes(graph, operator, def_use, one)
        )
    ]


def blitted_buffers(graph: VulkanGraph) -> Occurrences:
    """Conversions between floating-point types, or to the same type, in buffers."""
    return [
        Occurrence(f"operator {index}, {operator.kind}")
        for index, operator in enumerate(graph.operators)
        if is_blitted_buffer(graph, operator)
    ]


def gathers_from_the_end(graph: VulkanGraph) -> Occurrences:
    """`aten.gather` along a dimension that is counted from the end."""
    dims = [
        (place, fixed_value(graph, operator, 1))
        for place, operator in operators(graph, "aten.gather")
    ]
    return [
        Occurrence(f"{place}: dimension {dim}")
        for place, dim in dims
        if isinstance(dim, int) and dim < 0
    ]


def choices_by_lower_ranks(program: Program, graph: VulkanGraph) -> Occurrences:
    """`aten.where` of a lower rank first and a higher one after it, in programs that take calls of
    any length."""
    if not takes_calls_of_any_length(program, graph):
        return
    for place, operator in operators(graph, "aten.where"):
        shapes = [list(graph.tensor(i).shape) for i in operator.args[:-1]]
        ranks = [len(shape) for shape in shapes]
        if ranks and any(rank < max(ranks) for rank in ranks[: ranks.index(max(ranks))]):
            yield Occurrence(f"{place} of {', '.join(map(str, shapes))}")


def _is_fixed(graph: VulkanGraph, value_id: int) -> bool:
    """Whether a tensor is a constant, or a copy of one."""
    copied_from = {op.out: op.args[0] for op in graph.operators if op.kind in _COPIES}
    for _ in graph.operators:  # a damaged graph may go in circles
        value_id = copied_from.get(value_id, value_id)
    return is_constant(graph, value_id)


def textures(graph: VulkanGraph) -> Occurrences:
    """Programs that compute in textures."""
    count = sum(
        isinstance(value, Tensor) and value.constant is None and value.storage == "texture3d"
        for value in graph.values
    )
    return [Occurrence(f"{count} textures")] if count else []


def _place(graph: VulkanGraph, operator: Operator) -> str:
    index = next(i for i, other in enumerate(graph.operators) if other is operator)
    table = tensor_text(graph, operator.named_args["weights"])
    return f"operator {index}, {operator.kind} of {table}"
