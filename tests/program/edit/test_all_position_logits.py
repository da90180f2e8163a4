"""A program edited to give every position's logits gives what it gives for as many prompts."""

from dataclasses import replace

import pytest
import torch
from tests.support.comparisons.rounding import ROUNDING, rounding_explains
from tests.support.paths import ARTIFACTS as FOLDER

from quatrain.program import Operator, Program, open_program
from quatrain.program.edit.all_position_logits import give_all_position_logits
from quatrain.program.inspect.linears import find_linears
from quatrain.program.vulkan.graph import Plain
from quatrain.runtime.reference import ReferenceRunner
from quatrain.runtime.wgpu.adapters import list_adapters
from quatrain.runtime.wgpu.runner import WgpuRunner

PROGRAMS = sorted(path.name for path in FOLDER.glob("peer-*.pte") if "xnnpack" not in path.name)
TOKENS = [3, 17, 40, 9, 22, 61, 5]
RUNNERS = [ReferenceRunner, WgpuRunner] if list_adapters() else [ReferenceRunner]


def _prefill(program: Program, length: int) -> torch.Tensor:
    """The logits [V] after the first tokens, read in one call."""
    runner = ReferenceRunner(program)
    return runner.forward(torch.tensor([TOKENS[:length]]), torch.tensor([0])).reshape(-1).float()


@pytest.mark.parametrize("name", PROGRAMS)
def test_one_call_equals_as_many_prefills(name: str) -> None:
    program = open_program(FOLDER / name)
    # Of prompts of two tokens and more: a single one is computed otherwise (quatrain.arithmetic).
    expected = torch.stack([_prefill(program, length) for length in range(2, len(TOKENS) + 1)])
    assert give_all_position_logits(program.vulkan)
    tolerance = 2e-2 if "fp16" in name else ROUNDING
    tokens = torch.tensor([TOKENS])
    for runner in RUNNERS:
        found = runner(program).forward(tokens, torch.tensor([0]))
        assert found.shape == (1, len(TOKENS), expected.shape[1])
        error = (found[0, 1:].float() - expected).norm() / expected.norm()
        whole = ReferenceRunner(program), tokens, [(0, len(TOKENS))]
        assert error < tolerance or rounding_explains(float(error), *whole)


@pytest.mark.parametrize("name", [name for name in PROGRAMS if "fp16" in name])
def test_the_output_linear_computes_rows_one_by_one(name: str) -> None:
    """Float16 is summed as it is of one row on a phone, not as it is of several."""
    program, given = open_program(FOLDER / name), (torch.tensor([TOKENS]), torch.tensor([0]))
    expected = ReferenceRunner(program).forward(*given).reshape(-1)
    give_all_position_logits(program.vulkan)
    found = ReferenceRunner(program).forward(*given)[0, -1]
    torch.testing.assert_close(found.float(), expected.float(), rtol=2e-4, atol=2e-4)


def test_a_copy_before_the_output_linear_is_allowed() -> None:
    """As programs in float16 with a large vocabulary have it, into another storage."""
    program = open_program(FOLDER / "peer-8da4w-fp16-emb4.pte")
    assert give_all_position_logits(program.vulkan)
    expected = ReferenceRunner(program).forward(torch.tensor([TOKENS]), torch.tensor([0]))
    program = open_program(FOLDER / "peer-8da4w-fp16-emb4.pte")
    graph = program.vulkan
    place = max(linear.operator for linear in find_linears(graph))
    output = graph.operators[place]
    graph.values += [replace(graph.tensor(output.args[0]), mem_obj_id=None), Plain("null")]
    copy, memory_format = len(graph.values) - 2, len(graph.values) - 1
    clone = Operator("aten.clone.default", (output.args[0], memory_format, copy))
    read = replace(output, args=(copy, *output.args[1:]))
    graph.operators[place:] = [clone, read, *graph.operators[place + 1 :]]
    assert give_all_position_logits(graph)
    found = ReferenceRunner(program).forward(torch.tensor([TOKENS]), torch.tensor([0]))
    assert torch.equal(found, expected)


def test_another_ending_is_left_as_it_is() -> None:
    graph = open_program(FOLDER / PROGRAMS[0]).vulkan
    last = graph.operators[-1]
    graph.operators[-1] = Operator("aten.view_copy.default", last.args[:1] + last.args[-2:])
    operators, values = list(graph.operators), list(graph.values)
    assert not give_all_position_logits(graph)
    assert (graph.operators, graph.values) == (operators, values)


def test_no_choice_of_the_last_token_is_left_as_it_is() -> None:
    graph = open_program(FOLDER / PROGRAMS[0]).vulkan
    graph.operators = [op for op in graph.operators if op.kind != "aten.select_copy"]
    assert not give_all_position_logits(graph)
