"""Triggers of shapes for which the runtime reads other numbers, or refuses a program.

Each was measured on ExecuTorch's runtime; the sources are in the catalogue.
"""

from itertools import zip_longest

from quatrain.program import Program, Tensor, VulkanGraph
from quatrain.program.vulkan.elementwise import OF_TWO_TENSORS
from quatrain.targets.triggers.occurrence import (
    PACKED_FROM_THE_END,
    Occurrence,
    Occurrences,
    longest_call,
    tensors_of,
)

# Of the shaders that take sizes as four numbers, in buffers too.
_NAMES = (
    "abs clamp cos exp gelu hardtanh neg relu relu6 sigmoid sin sqrt rsqrt tanh tan hardshrink "
    "hardswish hardsigmoid leaky_relu log10 round bitwise_not mm bmm"
)
_OF_FOUR_SIZES = {f"aten.{name}" for name in _NAMES.split()}
_SOFTMAX = ("aten._softmax", "aten._log_softmax")
_TEXEL = 4
_MOST_DIMENSIONS = 4  # of a texture


def numbers_computed(graph: VulkanGraph) -> Occurrences:
    """Arithmetic on two tensors without dimensions, and softmax of one."""
    found = [
        Occurrence(f"{place}: of {x.dtype}[]")
        for place, operator, x in tensors_of(graph, OF_TWO_TENSORS)
        if _is_number(graph, operator.args[0]) and _is_number(graph, operator.args[1])
    ]
    return found + [
        Occurrence(f"{place}: of {x.dtype}[]")
        for place, _, x in tensors_of(graph, _SOFTMAX)
        if not x.shape
    ]


def more_than_four_dimensions(graph: VulkanGraph) -> Occurrences:
    """Tensors of more than four dimensions in textures, and in buffers of arithmetic on one tensor
    and of products."""
    for index, operator in enumerate(graph.operators):
        used = [graph.values[i] for i in (*graph.inputs_of(operator), *graph.outputs_of(operator))]
        wide = [
            one for one in used if isinstance(one, Tensor) and len(one.shape) > _MOST_DIMENSIONS
        ]
        if operator.kind not in _OF_FOUR_SIZES:
            wide = [one for one in wide if one.constant is None and one.storage != "buffer"]
        if wide:
            where = f"operator {index}, {operator.kind}: {list(wide[0].shape)}"
            yield Occurrence(f"{where} in a {wide[0].storage}")


def results_of_other_sizes(graph: VulkanGraph) -> Occurrences:
    """Arithmetic on two tensors whose result has other sizes than the two have together: each the
    larger one's, from the last on."""
    for place, operator, a in tensors_of(graph, OF_TWO_TENSORS):
        b, made = graph.values[operator.args[1]], graph.values[operator.out]
        if not isinstance(b, Tensor) or not isinstance(made, Tensor):
            continue
        sizes = zip_longest(reversed(a.shape), reversed(b.shape), fillvalue=1)
        together = [max(pair) for pair in sizes][::-1]
        if together != list(made.shape):
            of = f"{list(a.shape)} and {list(b.shape)}"
            yield Occurrence(f"{place}: {list(made.shape)} of {of}")


def norms_by_three_workers(program: Program, graph: VulkanGraph) -> Occurrences:
    """Layer norms in textures for which the runtime takes groups of three workers to a row."""
    longest = longest_call(program, graph)
    for place, _, x in tensors_of(graph, ("aten.native_layer_norm",)):
        calls = [longest, 3, 2] if longest in x.shape else [longest]
        shapes = [
            tuple(min(call, size) if size == longest else size for size in x.shape)
            for call in calls
        ]
        if x.storage != "buffer" and any(_has_three_workers(x, shape) for shape in shapes):
            yield Occurrence(f"{place}: of {list(x.shape)}")


def _has_three_workers(x: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether a texture is higher than wide and at least as high as deep, and the larger of width
    and depth 3, the other 2 or 3."""
    sizes = [*(1,) * (4 - len(shape)), *shape]
    packed = -PACKED_FROM_THE_END.get(x.layout, 1)
    sizes[packed] = -(-sizes[packed] // _TEXEL)
    width, height, depth = sizes[3], sizes[2], sizes[0] * sizes[1]
    three = max(width, depth) == 3 and min(width, depth) > 1
    return three and height > width and height >= depth


def _is_number(graph: VulkanGraph, value_id: int) -> bool:
    value = graph.values[value_id]
    return isinstance(value, Tensor) and not value.shape
