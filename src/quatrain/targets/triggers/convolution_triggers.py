"""Triggers of convolutions: forms that the runtime refuses, and those that it computes wrongly.

Source: `Convolution.cpp`, `Conv2dDW.cpp` and `conv2d_dw.glsl` of ExecuTorch 1.5, each form measured
on its runtime.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from quatrain.program import Program, Tensor, VulkanGraph
from quatrain.program.call_lengths import takes_calls_of_any_length
from quatrain.program.vulkan.def_use import DefUse
from quatrain.targets.triggers.occurrence import (
    Occurrence,
    Occurrences,
    fixed_value,
    operators,
    tensors_of,
)

KINDS = ("aten.convolution", "et_vk.conv_with_clamp")
_TILED = ((3, 3), (5, 5))  # kernels that have a depthwise shader of their own
_TOGETHER = 4  # channels of a texel


@dataclass(frozen=True)
class _Form:
    """A convolution, whose options not given are those of one without them."""

    x: Tensor
    weight: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    groups: int

    @property
    def depthwise(self) -> bool:
        return not self.transposed and self.weight[0] == self.groups and self.weight[1] == 1

    @property
    def kernel(self) -> tuple[int, ...]:
        return self.weight[2:]


def convolutions_refused(graph: VulkanGraph) -> Occurrences:
    """Convolutions of a form, or in a layout, that the runtime does not take."""
    return [
        Occurrence(f"{place}: {problem}")
        for place, form in _forms(graph)
        if (problem := _refused_2d(form) if len(form.x.shape) == 4 else _refused_1d(form))
    ]


def convolutions_wrong(graph: VulkanGraph) -> Occurrences:
    """Convolutions of a form that the runtime takes and computes as another."""
    return [
        Occurrence(f"{place}: {problem}")
        for place, form in _forms(graph)
        if (problem := _wrong_2d(form) if len(form.x.shape) == 4 else _wrong_1d(form))
    ]


def convolution_past_the_call(program: Program, graph: VulkanGraph) -> Occurrences:
    """Convolutions of signals, channels-packed, with padding of which not all is cut off again, and
    depthwise ones of images, padded, with a stride that is not the dilation; in programs that take
    calls of any length."""
    if not takes_calls_of_any_length(program, graph):
        return
    def_use = DefUse(graph)
    for place, operator in operators(graph, *KINDS):
        signal, padding = graph.values[operator.args[0]], graph.plain(operator.args[4])
        if not isinstance(signal, Tensor) or len(signal.shape) != 3 or not any(padding or ()):
            continue
        readers = [graph.operators[i].kind for i in def_use.consumers.get(operator.out, ())]
        cut_off = bool(readers) and set(readers) == {"aten.slice_copy"}
        if signal.layout == "channels_packed" and not cut_off:
            yield Occurrence(f"{place}: padding of {list(padding)}")
    for place, form in _forms(graph):
        tiled = len(form.x.shape) == 4 and form.depthwise and form.kernel in _TILED
        if tiled and form.stride != form.dilation and any(form.padding):
            yield Occurrence(f"{place}: depthwise, padding of {list(form.padding)}")


def _refused_2d(form: _Form) -> str | None:
    if form.x.shape[0] > 1:
        return f"{form.x.shape[0]} batches"
    if form.transposed and any(size > 1 for size in form.dilation):
        return f"transposed, with a dilation of {list(form.dilation)}"
    other = form.depthwise and form.kernel not in _TILED
    if other and form.stride != form.dilation:
        return f"depthwise by {list(form.kernel)}, with a stride that is not the dilation"
    return _packed_otherwise(form)


def _refused_1d(form: _Form) -> str | None:
    if form.x.layout != "height_packed" or form.x.storage == "buffer":
        return _packed_otherwise(form)
    if form.kernel == (1,):
        return f"{form.groups} groups, height-packed" if form.groups > 1 else None
    return None if form.depthwise else f"a kernel of {list(form.kernel)}, height-packed"


def _packed_otherwise(form: _Form) -> str | None:
    if form.x.storage == "default" or form.x.layout in ("channels_packed", "default"):
        return None if form.x.storage != "buffer" else "in a buffer"
    return f"in a {form.x.storage} that is {form.x.layout}"


def _wrong_2d(form: _Form) -> str | None:
    outputs, inputs = form.weight[0], form.weight[1]
    if form.depthwise:
        tall_and_padded = form.kernel[0] > 1 and form.padding[-1] > 0
        bad = form.kernel not in _TILED and tall_and_padded
        return f"depthwise by {list(form.kernel)}, padded at the sides" if bad else None
    if form.groups == 1:
        return None
    if form.transposed or form.kernel == (1, 1):
        return f"{form.groups} groups, {'transposed' if form.transposed else 'of single places'}"
    each = (inputs, outputs // form.groups)
    if any(size % _TOGETHER for size in each):
        return f"{form.groups} groups of {each[0]} into {each[1]} channels"
    return None


def _wrong_1d(form: _Form) -> str | None:
    if form.transposed:
        return "transposed, of a signal"
    moved = any(form.padding) or any(size > 1 for size in form.stride)
    if form.x.layout == "height_packed" and form.kernel == (1,) and moved:
        return "of single places, height-packed, with a stride or padding"
    return None


def _forms(graph: VulkanGraph) -> Iterator[tuple[str, _Form]]:
    for place, operator, x in tensors_of(graph, KINDS):
        weight = graph.values[operator.args[1]]
        given = [fixed_value(graph, operator, at) for at in range(3, 9)]
        if not isinstance(weight, Tensor):
            continue
        places = len(weight.shape) - 2
        if places < 1 or len(x.shape) not in (3, 4) or len(x.shape) != len(weight.shape):
            continue
        stride, padding, dilation, transposed, _, groups = given
        yield (
            place,
            _Form(
                x, weight.shape, _each(stride, 1, places), _each(padding, 0, places),
                _each(dilation, 1, places), bool(transposed), groups or 1,
            ),
        )  # fmt: skip


def _each(given: Any, usual: int, places: int) -> tuple[int, ...]:
    """An option for each dimension."""
    return tuple(given) if isinstance(given, list | tuple) and given else (usual,) * places
