"""Operators that a phone's runtime computes for the longest call, and for a shorter one refuses or
computes otherwise, beside ones that it computes for any. Each was run on ExecuTorch's runtime."""

from pathlib import Path

import torch
from tests.support.defects.attention_forms import fused_attention
from tests.support.defects.edited_methods import edited_method, varying_input
from tests.support.defects.form_defects import convolution, image, reduced
from tests.support.defects.one_operator import FALSE, NULL, TRUE, Make, T, call, ints, number
from tests.support.defects.static_int8_forms import added, linear

from quatrain.program import Plain, SymInt, open_program, write_program
from quatrain.program.vulkan.graph import Operator


def of_any_length(make: Make) -> Make:
    """The program of one operator, whose first argument is an input that changes with the call."""

    def changed(folder: Path) -> Path:
        program = open_program(make(folder))
        graph = program.vulkan
        x = graph.operators[0].args[0]
        graph.inputs.append(x)
        graph.values += [Plain("int", 1), SymInt(8)]
        graph.operators.append(Operator("sym_size.int", (x, *range(len(graph.values))[-2:])))
        write_program(program, folder / "any_length.pte")
        return folder / "any_length.pte"

    return changed


def said_to_vary(make: Make) -> Make:
    """The program of one operator, of whose first argument the method alone says that it changes
    with the call: made by a partitioner that was not told of it."""

    def changed(folder: Path) -> Path:
        program = open_program(make(folder))
        x = program.vulkan.operators[0].args[0]
        program.vulkan.inputs.append(x)
        write_program(program, folder / "with_input.pte")
        edit = varying_input(*program.vulkan.tensor(x).shape)
        return edited_method(folder / "with_input.pte", edit)(folder)

    return changed


def permuted(*order: int) -> Make:
    x = T((2, 8, 4))
    out = T(tuple(x.shape[dim] for dim in order))
    return call("aten.permute_copy.default", x, ints(*order), out)


def upsampled(sizes: tuple, scales: tuple, aligned: bool = False) -> Make:
    x, out = image(1, 3, 4, 5), image(1, 3, 8, 10)
    return call("aten.upsample_bilinear2d.vec", x, sizes, ("bool", aligned), scales, out)


def cut(start: int, end: int, dim: int = 1) -> Make:
    x = T((1, 8, 64))
    out = T(torch.empty(x.shape).transpose(0, dim)[start:end].transpose(0, dim).shape)
    bounds = (number(one) for one in (dim, start, end, 1))
    return call("aten.slice_copy.Tensor", x, *bounds, out)


def selected(dim: int) -> Make:
    x, index = image(2, 8, 4), image(1, dtype="int32")
    out = image(*(1 if place == dim else size for place, size in enumerate(x.shape)))
    return call("aten.index_select.default", x, number(dim), index, out)


def depthwise(stride: int, padding: int = 1) -> Make:
    return convolution((8, 1, 3, 3), stride=stride, padding=padding, groups=8)


def signal(padding: int, layout: str = "channels_packed") -> Make:
    return of_any_length(convolution((4, 4, 3), (1, 4, 8), padding=padding, layout=layout))


def where(*condition: int) -> Make:
    """A choice between [1, 8, 8] and a number."""
    x = T((1, 8, 8))
    return call("aten.where.self", T(condition, "bool"), x, T((1,)), x)


_END, _TWICE = 2**31 - 1, ("double_list", (2.0, 2.0))
_SUM = "sum.dim_IntList"
_VARIANCE = call("aten.var.dim", T((3, 8, 4)), ints(-1), FALSE, TRUE, T((3, 8, 1)))
# defect, a program that has it, one that does not
LENGTH_FORMS: list[tuple[str, Make, Make]] = [
    ("permute-from-the-end", of_any_length(permuted(0, -1, 1)), of_any_length(permuted(0, 2, 1))),
    ("permute-from-the-end", of_any_length(permuted(0, -1, 1)), permuted(0, -1, 1)),
    ("upsample-any-length", of_any_length(upsampled(ints(8, 10), NULL)),
     of_any_length(upsampled(NULL, _TWICE))),
    ("upsample-any-length", of_any_length(upsampled(NULL, _TWICE, aligned=True)),
     upsampled(ints(8, 10), NULL)),
    ("slice-past-the-call", of_any_length(cut(-2, _END)), of_any_length(cut(-1, _END))),
    ("slice-past-the-call", of_any_length(cut(1, _END)), of_any_length(cut(1, _END, dim=2))),
    ("slice-past-the-call", of_any_length(cut(0, -2)), cut(0, -2)),
    ("dynamic-no-resize", of_any_length(selected(2)), of_any_length(selected(1))),
    ("conv1d-past-the-call", signal(1), signal(0)),
    ("conv1d-past-the-call", signal(1), signal(1, "height_packed")),
    ("conv1d-past-the-call", said_to_vary(depthwise(2)), said_to_vary(depthwise(1))),
    ("conv1d-past-the-call", of_any_length(depthwise(2)), of_any_length(depthwise(1))),
    ("conv1d-past-the-call", of_any_length(depthwise(2)), of_any_length(depthwise(2, padding=0))),
    ("conv1d-past-the-call", of_any_length(depthwise(2)), depthwise(2)),
    ("sdpa-fused-buffers", of_any_length(fused_attention(8, 16, 16)), fused_attention(8, 16, 16)),
    ("reduction-without-keepdim", of_any_length(reduced(_SUM, (3, 8, 4), (0,), (8, 4))),
     reduced(_SUM, (3, 8, 4), (0,), (8, 4))),
    ("reduction-without-keepdim", of_any_length(_VARIANCE), _VARIANCE),
    ("where-lower-rank", of_any_length(where(8, 8)), of_any_length(where(1, 8, 8))),
    ("where-lower-rank", of_any_length(where(8, 8)), where(8, 8)),
]  # fmt: skip
LENGTH_CASES: list[tuple[str, str, str | None, Make, Make]] = [
    (defect, "desktop", "1.5", has, lacks) for defect, has, lacks in LENGTH_FORMS
] + [
    ("static-int8-no-resize", "desktop", "1.3", of_any_length(linear(1, 8, 32)), linear(1, 8, 32)),
    (
        "static-int8-no-resize",
        "desktop",
        "1.3",
        of_any_length(added(1, 8, 6, 5)),
        added(1, 8, 6, 5),
    ),
]
