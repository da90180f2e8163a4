"""A program edited to dispatch less gives the same bits, on both of our runtimes.

That ExecuTorch's own runtime gives them too was measured beside the repository: what it recorded
for the programs of `tests/runtime/conformance` it gives, bit for bit, for the edited ones.
"""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from tests.support.devices import RUNNERS
from tests.support.paths import ARTIFACTS
from tests.support.programs import PROMPT, TOKENS, VULKAN, artifact

from quatrain.program import Operator, Plain, Program, Tensor, ValueList, open_program
from quatrain.program.edit.all_position_logits import give_all_position_logits
from quatrain.program.edit.compact import compact
from quatrain.program.edit.fewer_dispatches import reduce_dispatches
from quatrain.program.edit.prefill_qparams import (
    choose_in_every_call,
    qparams_slices,
    reduce_qparams,
)
from quatrain.program.edit.redundant_copies import remove_redundant_copies
from quatrain.program.edit.retarget import retarget
from quatrain.program.inspect.dispatches import call_cost
from quatrain.program.vulkan.memory import memory_conflicts
from quatrain.runtime.reference import ReferenceRunner

DYNAMIC = sorted(path.stem for path in ARTIFACTS.glob("peer-*8da4w-fp*.pte"))
CHOOSE = "torchao.choose_qparams_affine"


def edited(name: str) -> Program:
    program = open_program(artifact(name))
    reduce_dispatches(program.vulkan)
    compact(program.vulkan)
    return program


def kinds(program: Program) -> Counter:
    return Counter(operator.kind for operator in program.vulkan.operators)


def calls(program: Program, runner: type) -> torch.Tensor:
    """The logits of a prompt, of steps, and of a longer prompt after them."""
    run = runner(program)
    rows = [run.forward(torch.tensor([TOKENS[:PROMPT]]), torch.tensor([0]))]
    for i, token in enumerate(TOKENS[PROMPT:]):
        rows.append(run.forward(torch.tensor([[token]]), torch.tensor([PROMPT + i])))
    rows.append(run.forward(torch.tensor([TOKENS]), torch.tensor([len(TOKENS)])))
    return torch.stack([row.reshape(-1) for row in rows])


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("name", VULKAN)
def test_the_same_bits(name: str, runner: type) -> None:
    program = edited(name)
    assert memory_conflicts(program.vulkan) == []
    assert calls(program, runner).equal(calls(open_program(artifact(name)), runner))


@pytest.mark.parametrize("name", DYNAMIC)
def test_a_decode_step_chooses_no_parameters_and_a_prompt_chooses_once_an_activation(name):
    before, after = open_program(artifact(name)), edited(name)
    linears = kinds(before)["et_vk.linear_dq8ca_q4gsw"]
    activations = 4 * (linears // 7) + 1
    assert kinds(before)[CHOOSE] == linears
    assert kinds(after)[CHOOSE] == len(qparams_slices(after.vulkan)) == activations
    prompt, step = call_cost(after.vulkan, 5, 0), call_cost(after.vulkan, 1, 5)
    assert prompt.operators[CHOOSE].dispatches == activations
    assert CHOOSE not in step.operators
    again = list(after.vulkan.operators)
    reduce_qparams(after.vulkan)
    compact(after.vulkan)
    assert [op.name for op in after.vulkan.operators] == [op.name for op in again]


def test_views_in_the_shape_that_a_value_has_are_left_out() -> None:
    before, after = open_program(artifact("peer-8da4w-fp32")), edited("peer-8da4w-fp32")
    # Of five views a layer one, before the feed-forward's last linear, is of [1, T, 96] as it is.
    assert (kinds(before)["aten.view_copy"], kinds(after)["aten.view_copy"]) == (10, 8)
    graph = after.vulkan
    for operator in graph.operators:
        if operator.kind == "aten.view_copy":
            assert graph.tensor(operator.args[0]).shape != graph.tensor(operator.out).shape


def test_a_view_of_two_free_sizes_stays() -> None:
    graph = open_program(artifact("peer-8da4w-fp32")).vulkan
    views = [op for op in graph.operators if op.kind == "aten.view_copy"]
    idle = next(v for v in views if graph.tensor(v.args[0]).shape == graph.tensor(v.out).shape)
    sizes = graph.values[idle.args[1]]
    graph.values[idle.args[1]] = replace(sizes, items=(*sizes.items[:1], sizes.items[1]) * 2)
    remove_redundant_copies(graph)
    assert idle.out in {operator.out for operator in graph.operators}


def test_a_list_names_what_a_removed_view_read() -> None:
    """Such as the tensors that a cat puts together."""
    graph = open_program(artifact("peer-8da4w-fp32")).vulkan
    views = [op for op in graph.operators if op.kind == "aten.view_copy"]
    idle = next(v for v in views if graph.tensor(v.args[0]).shape == graph.tensor(v.out).shape)
    joined = len(graph.values)
    result = replace(graph.tensor(idle.out), mem_obj_id=None)
    graph.values += [ValueList((idle.out, idle.out)), Plain("int", 1), result]
    graph.operators.append(Operator("aten.cat.default", (joined, joined + 1, joined + 2)))
    remove_redundant_copies(graph)
    assert idle.out not in {operator.out for operator in graph.operators}
    assert graph.values[joined] == ValueList((idle.args[0], idle.args[0]))


def test_the_rows_of_a_table_are_taken_where_they_are_read() -> None:
    """As SmolLM2's table of 49,152 rows makes the peer's whole graph lie in buffers."""
    program = open_program(artifact("peer-8da4w-fp32"))
    graph = program.vulkan
    slices = [op for op in graph.operators if op.kind == "aten.slice_copy"]
    for rows in slices:
        graph.values.append(
            replace(
                graph.tensor(rows.out), storage="buffer", layout="width_packed", mem_obj_id=None
            )
        )
        copy = len(graph.values) - 1
        place = graph.operators.index(rows) + 1
        readers = [
            replace(op, args=tuple(copy if arg == rows.out else arg for arg in op.args))
            for op in graph.operators[place:]
        ]
        clone = replace(rows, name="aten.clone.default", args=(rows.out, rows.args[1], copy))
        graph.operators[place:] = [clone, *readers]
    expected = calls(program, ReferenceRunner)
    remove_redundant_copies(graph)
    assert "aten.clone" not in kinds(program)
    for rows in slices:
        found = next(op for op in graph.operators if op.args[:2] == rows.args[:2])
        assert {graph.tensor(i).storage for i in (found.args[0], found.out)} == {"buffer"}
    assert calls(program, ReferenceRunner).equal(expected)
    assert memory_conflicts(graph) == []


def test_the_last_token_is_selected_before_the_last_norm() -> None:
    graph = edited("peer-8da4w-fp32").vulkan
    place = next(i for i, op in enumerate(graph.operators) if op.kind == "aten.select_copy")
    select, norm = graph.operators[place : place + 2]
    assert (norm.kind, norm.args[0]) == ("et_vk.rms_norm", select.out)
    assert graph.tensor(norm.out).shape == (1, 64)


def test_weight_only_has_none_of_it_and_8da4w_has_it_again() -> None:
    program = edited("peer-8da4w-fp32")
    sparing = [operator.name for operator in program.vulkan.operators]
    retarget(program, "weight-only")
    assert not {CHOOSE, "sub", "floordiv"} & set(kinds(program))
    assert kinds(program)["aten.slice_copy"] == 2  # the rotary tables'
    retarget(program, "8da4w")
    assert [operator.name for operator in program.vulkan.operators] == sparing


def test_runtimes_before_1_3_get_it_without_computing_with_integers() -> None:
    program, expected = edited("peer-8da4w-fp32"), open_program(artifact("peer-8da4w-fp32"))
    choose_in_every_call(program.vulkan)
    assert not {"sub", "floordiv"} & set(kinds(program))
    assert (kinds(program)[CHOOSE], qparams_slices(program.vulkan)) == (9, set())
    assert memory_conflicts(program.vulkan) == []
    assert calls(program, ReferenceRunner).equal(calls(expected, ReferenceRunner))


def test_every_positions_logits_can_be_had_of_it() -> None:
    plain, sparing = open_program(artifact("peer-8da4w-fp32")), edited("peer-8da4w-fp32")
    found = []
    for program in (plain, sparing):
        assert give_all_position_logits(program.vulkan)
        found.append(ReferenceRunner(program).forward(torch.tensor([TOKENS]), torch.tensor([0])))
    assert found[1].equal(found[0])


def test_calls_of_one_length_and_runtimes_before_1_3_are_left_alone() -> None:
    static = open_program(artifact("peer-8da4w-fp32")).vulkan
    tokens = static.inputs[0]
    static.values[tokens] = replace(static.tensor(tokens), shape=(1, 1))
    older = open_program(artifact("peer-8da4w-fp32")).vulkan
    older.operators = [op for op in older.operators if op.kind != "et_vk.rms_norm"]
    for graph in (static, older):
        reduce_qparams(graph)
        assert qparams_slices(graph) == set()
        assert all(isinstance(graph.values[i], Tensor) for i in graph.inputs)
