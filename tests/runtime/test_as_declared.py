"""What a program says of its values counts here as on a phone, whose runtime was seen to refuse
such edits of a program, or to compute so."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.devices import RUNNERS
from tests.support.paths import CONFORMANCE
from tests.support.programs import GraphMaker

from quatrain.errors import InputError
from quatrain.program import Operator, Plain, SymInt, VulkanGraph, open_program, write_program

PROGRAM = CONFORMANCE / "llama_w.pte"
CALL = torch.tensor([[5, 7, 9, 4, 2, 8, 1, 3, 6]]), torch.tensor([0])


def edited(path: Path, kind: str, edit: Callable[[VulkanGraph, Operator], None]) -> Path:
    """The program, `edit` having changed the first operator of that kind."""
    program = open_program(PROGRAM)
    graph = program.vulkan
    edit(graph, next(operator for operator in graph.operators if operator.kind == kind))
    write_program(program, path)
    return path


def causality_unsaid(graph: VulkanGraph, operator: Operator) -> None:
    graph.values.append(Plain("null"))  # others may read the value that says so
    place, unsaid = graph.operators.index(operator), len(graph.values) - 1
    stated = operator.named_args["is_causal"]
    args = tuple(unsaid if arg == stated else arg for arg in operator.args)
    graph.operators[place] = replace(operator, args=args)


@pytest.mark.parametrize("runner", RUNNERS)
def test_attention_is_causal_where_nothing_is_said(runner, tmp_path):
    path = edited(tmp_path / "m.pte", "sdpa_with_kv_cache", causality_unsaid)
    found, expected = runner(path).forward(*CALL), runner(PROGRAM).forward(*CALL)
    assert torch.equal(torch.as_tensor(found), torch.as_tensor(expected))


@pytest.mark.parametrize(("first", "last"), [(0, None), (None, 8)])
@pytest.mark.parametrize("runner", RUNNERS)
def test_how_many_rows_are_taken_follows_the_position(runner, first, last, tmp_path):
    """Of calls of one length, too."""
    maker, rows = GraphMaker(), np.arange(32, dtype=np.float32).reshape(8, 4)
    x, position = maker.input("float32", 1, 4), maker.input("int32", 1)
    zero, one, at = maker.plain("int", 0), maker.plain("int", 1), maker.add(SymInt())
    maker.call("et_vk.select_as_symint.default", position, zero, zero, at)
    start, end = (at if number is None else maker.plain("int", number) for number in (first, last))
    taken, total = maker.tensor("float32", 8, 4), maker.tensor("float32", 4)
    maker.call("aten.slice_copy.Tensor", maker.constant(rows), zero, start, end, one, taken)
    dims, no, unsaid = maker.add_shape(0), maker.plain("bool", False), maker.plain("null")
    maker.call("aten.sum.dim_IntList", taken, dims, no, unsaid, total)
    out = maker.tensor("float32", 1, 4)
    maker.call("aten.add.Tensor", x, total, one, out)
    found = runner(maker.save(tmp_path / "m.pte", [out]))
    for place in (1, 3, 2):
        expected = rows[:place] if last is None else rows[place:]
        given = torch.zeros(1, 4), torch.tensor([place], dtype=torch.int32)
        assert torch.equal(found.forward(*given)[0], torch.as_tensor(expected.sum(0)))


@pytest.mark.parametrize("runner", RUNNERS)
def test_bytes_may_be_constants_of_two_types(runner, tmp_path):
    """As `retarget --slim` stores them once where they are equal."""
    maker, numbers = GraphMaker(), np.array([1, 2, 3, 4], np.float32)
    x, floats = maker.input("float32", 1, 4), maker.constant(numbers)
    integers = maker.tensor("int8", 4, 4, constant=0)
    product, wide = maker.tensor("float32", 1, 4), maker.tensor("float32", 4, 4)
    out, unsaid = maker.tensor("float32", 4, 4), [maker.plain("null") for _ in range(6)]
    maker.call("aten.mul.Tensor", x, floats, product)
    maker.call("aten._to_copy.default", integers, *unsaid, wide)
    maker.call("aten.add.Tensor", product, wide, maker.plain("int", 1), out)
    path = maker.save(tmp_path / "m.pte", [out])
    expected = 2 * numbers + numbers.view(np.int8).reshape(4, 4)
    assert torch.equal(runner(path).forward(torch.full((1, 4), 2.0)), torch.as_tensor(expected))


@pytest.mark.parametrize("runner", RUNNERS)
def test_an_int4_embedding_of_earlier_exporters_is_not_a_linear(runner, tmp_path):
    """They did not say whose weight it is packed as."""

    def deny(graph: VulkanGraph, operator: Operator) -> None:
        args = (*operator.args[:-2], len(graph.values), operator.out)
        graph.values.append(Plain("bool", False))
        graph.operators[graph.operators.index(operator)] = replace(operator, args=args)

    def leave_out(graph: VulkanGraph, operator: Operator) -> None:
        args = (*operator.args[:-2], operator.out)
        graph.operators[graph.operators.index(operator)] = replace(operator, args=args)

    found, expected = (
        runner(edited(tmp_path / f"{edit.__name__}.pte", "et_vk.embedding_q4gsw", edit)).forward(
            *CALL
        )
        for edit in (leave_out, deny)
    )
    assert torch.equal(torch.as_tensor(found), torch.as_tensor(expected))


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("et_vk.rms_norm", (1, 8, 64)),
        ("et_vk.rms_norm", (64, 64)),
        ("et_vk.rms_norm", (1, 65, 64)),
        ("et_vk.apply_rotary_emb_hf", (1, 8, 4, 16)),  # one result of two
        ("et_vk.linear_q4gsw", (1, 63, 64)),
        ("sdpa_with_kv_cache", (1, 64, 4, 17)),
        ("aten.view_copy", (1, 64, 4, 17)),
        ("aten.sigmoid", (1, 65, 96)),
    ],
)
def test_a_result_of_other_sizes_than_its_operator_gives_is_refused(kind, shape, tmp_path):
    """In the calls of any length, and as the program is opened."""

    def change(graph: VulkanGraph, operator: Operator) -> None:
        result, *_ = graph.outputs_of(operator)
        graph.values[result] = replace(graph.tensor(result), shape=shape)

    path = edited(tmp_path / "m.pte", kind, change)
    with pytest.raises(InputError, match=r"damaged: operator .* its result is said to be"):
        open_program(path)


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_result_without_room_is_refused(runner, tmp_path):
    """Of as many rows as the call says."""
    maker, rows = GraphMaker(), np.ones((8, 4), np.float32)
    position = maker.input("int32", 1)
    zero, one, end = maker.plain("int", 0), maker.plain("int", 1), maker.add(SymInt())
    maker.call("et_vk.select_as_symint.default", position, zero, zero, end)
    out = maker.tensor("float32", 6, 4)
    maker.call("aten.slice_copy.Tensor", maker.constant(rows), zero, zero, end, one, out)
    loaded = runner(maker.save(tmp_path / "m.pte", [out]))
    assert torch.as_tensor(loaded.forward(torch.tensor([6]))).shape == (6, 4)
    with pytest.raises(InputError, match=r"room for|fit the program"):
        loaded.forward(torch.tensor([8]))
