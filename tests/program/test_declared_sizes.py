"""The sizes that a graph says of its results, beside those that its operators give."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.support.defects.one_operator import FALSE, NULL, TRUE, Argument, T, call, ints, number
from tests.support.paths import CONFORMANCE

from quatrain.errors import InputError
from quatrain.program import Tensor, open_program
from quatrain.program.vulkan.sizes.declared_sizes import misdeclared_sizes

X, IMAGE = T((2, 3, 4)), T((1, 8, 5, 6))
OPTIONS = (NULL, NULL, NULL, NULL)
CASES: dict[str, tuple[Argument, ...]] = {
    "aten.sigmoid.default": (X,),
    "aten.eq.Scalar": (X, number(3)),
    "aten.where.self": (T((2, 1, 4), "bool"), X, T((4,))),
    "aten._softmax.default": (X, number(-1), FALSE),
    "aten.mean.dim": (X, ints(-1), TRUE, NULL),
    "aten.sum.dim_IntList": (X, ints(0, 2), FALSE, NULL),
    "aten.amax.default": (X, ints(1), FALSE),
    "aten.argmin.default": (X, number(-1), TRUE),
    "aten.native_layer_norm.default": (X, ints(3, 4), T((3, 4)), T((3, 4)), ("double", 1e-5)),
    "aten.mm.default": (T((5, 4)), T((4, 7))),
    "aten.bmm.default": (T((2, 5, 4)), T((2, 4, 7))),
    "aten.addmm.default": (T((7,)), T((5, 4)), T((4, 7)), number(1), number(1)),
    "aten.linear.default": (X, T((7, 4)), NULL),
    "aten.embedding.default": (T((9, 6)), T((2, 3), "int32"), number(-1), FALSE, FALSE),
    "aten.cat.default": ([X, T((2, 5, 4))], number(1)),
    "aten.split_with_sizes_copy.default": (X, ints(1, 3), number(-1)),
    "aten.split_copy.Tensor": (T((2, 7)), number(3), number(1)),
    "aten.slice_copy.Tensor": (T((2, 9)), number(-1), number(-7), NULL, number(3)),
    "aten.select_copy.int": (X, number(-2), number(0)),
    "aten.index_select.default": (X, number(1), T((6,), "int32")),
    "aten.gather.default": (X, number(-1), T((2, 3, 2), "int32"), FALSE),
    "aten.permute_copy.default": (X, ints(2, 0, -2)),
    "aten.transpose_copy.int": (X, number(0), number(-1)),
    "aten.t_copy.default": (T((2, 3)),),
    "aten.unsqueeze_copy.default": (X, number(-1)),
    "aten.squeeze_copy.dims": (T((1, 2, 1, 4)), ints(0, 1)),
    "aten.expand_copy.default": (T((3, 1)), ints(2, -1, 4), FALSE),
    "aten.repeat.default": (T((3, 4)), ints(2, 1, 3)),
    "aten.view_copy.default": (X, ints(4, -1)),
    "aten.full.default": (ints(2, 3), number(1), *OPTIONS),
    "aten.full_like.default": (X, number(1), *OPTIONS, NULL),
    "aten.flip.default": (X, ints(0)),
    "aten.unfold_copy.default": (T((2, 9)), number(1), number(4), number(2)),
    "aten.constant_pad_nd.default": (X, ints(1, 2, 0, 3), number(0)),
    "aten.pixel_shuffle.default": (IMAGE, number(2)),
    "aten.convolution.default": (
        IMAGE, T((6, 4, 3, 2)), NULL, ints(2, 1), ints(1, 0), ints(1, 2), FALSE, ints(0, 0),
        number(2),
    ),
    "aten.convolution.transposed": (
        IMAGE, T((8, 3, 3, 2)), NULL, ints(2), ints(1), ints(1), TRUE, ints(1), number(2),
    ),
}  # fmt: skip


def meta(argument: Argument) -> object:
    if isinstance(argument, list):
        return [meta(each) for each in argument]
    if isinstance(argument, T):
        return torch.empty(argument.shape, dtype=getattr(torch, argument.dtype), device="meta")
    value = argument[1] if len(argument) > 1 else None
    return list(value) if isinstance(value, tuple) else value


def torchs(name: str, arguments: tuple[Argument, ...]) -> list[tuple[int, ...]]:
    """The sizes of the results of torch's operator."""
    _, kind, overload = name.replace("transposed", "default").split(".")
    operator = getattr(getattr(torch.ops.aten, kind), overload)
    values, stated = [meta(each) for each in arguments], operator._schema.arguments
    named = {each.name: v for each, v in zip(stated, values, strict=True) if each.kwarg_only}
    results = operator(*values[: len(values) - len(named)], **named)
    several = isinstance(results, list | tuple)
    return [tuple(each.shape) for each in (results if several else [results])]


@pytest.mark.parametrize("name", CASES)
def test_sizes_are_those_of_torchs_operator(name: str, tmp_path: Path) -> None:
    given, arguments = torchs(name, CASES[name]), CASES[name]

    def program(*shapes: tuple[int, ...]) -> Path:
        out: Argument = [T(each) for each in shapes] if len(shapes) > 1 else T(shapes[0])
        return call(name.replace("transposed", "default"), *arguments, out)(tmp_path)

    open_program(program(*given))
    first = given[0]
    for wrong in ((*first[:-1], first[-1] + 1), (first[0] + 1, *first[1:]), (1, *first)):
        with pytest.raises(InputError, match=r"damaged: operator 0, aten\..* said to be"):
            open_program(program(wrong, *given[1:]))


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("aten.select_copy.int", (X, number(1), number(3)), "place 3 of 3"),
        ("aten.select_copy.int", (X, number(3), number(0)), "dimension 3 of 3"),
        ("aten.permute_copy.default", (X, ints(0, 0, 1)), "order [0, 0, 1]"),
        ("aten.slice_copy.Tensor", (X, number(1), NULL, NULL, number(0)), "steps of 0"),
        ("aten.gather.default", (X, number(0), T((2, 3), "int32"), FALSE), "places [2, 3]"),
        ("aten.sum.dim_IntList", (X, ints(-4), FALSE, NULL), "dimension -4 of 3"),
    ],
)
def test_what_torch_does_not_take_is_refused(
    name: str, arguments: tuple[Argument, ...], why: str, tmp_path: Path
) -> None:
    with pytest.raises((RuntimeError, IndexError)):
        torchs(name, arguments)
    with pytest.raises(InputError, match=rf"damaged: operator 0, {name}, takes .*{re.escape(why)}"):
        open_program(call(name, *arguments, X)(tmp_path))


@pytest.mark.parametrize("name", ["llama_w", "granite_d"])
def test_no_size_of_a_result_can_be_another(name: str) -> None:
    graph = open_program(CONFORMANCE / f"{name}.pte").vulkan
    # Of constants the number of elements counts, and the doctor looks at arithmetic.
    other = ("et_vk.prepack", "aten.add", "aten.mul")
    looked_at = [operator for operator in graph.operators if operator.kind not in other]
    for result in {each for operator in looked_at for each in graph.outputs_of(operator)}:
        said = graph.values[result]
        for place in range(len(said.shape)) if isinstance(said, Tensor) else ():
            for size in (said.shape[place] - 1, said.shape[place] + 1):
                shape = (*said.shape[:place], size, *said.shape[place + 1 :])
                graph.values[result] = replace(said, shape=shape)
                assert list(misdeclared_sizes(graph)), (result, said, shape)
        graph.values[result] = said
