"""What a method plans into one place of its memory, and needs there at the same time, is told."""

from pathlib import Path

import pytest
from tests.support.defects.edited_methods import (
    Edit,
    caches,
    edited_method,
    planned_over,
    under_names,
)
from tests.support.paths import CONFORMANCE
from tests.support.programs import EVERY, artifact

from quatrain.program import open_program
from quatrain.program.file.flatbuffer import Record
from quatrain.program.plan.method_memory import method_memory_problems, methods_with_own_state
from quatrain.targets import fatal_findings
from quatrain.targets.triggers.method_triggers import caches_of_each_method
from quatrain.targets.triggers.occurrence import Occurrence


@pytest.mark.parametrize(
    "path", [*map(artifact, EVERY), *sorted(CONFORMANCE.glob("*.pte"))], ids=lambda path: path.stem
)
def test_what_executorch_planned_is_right(path: Path) -> None:
    """Views of one value too, which are in its place."""
    assert method_memory_problems(open_program(path)) == []


def _inputs_in_one_place(plan: Record) -> None:
    tokens, position = (plan.values[i].val for i in plan.inputs)
    position.allocation_info = tokens.allocation_info


def _over_a_cache(plan: Record) -> None:
    """The method's result, behind which that call reads nothing more."""
    place = caches(plan)[0].allocation_info
    plan.values[plan.outputs[0]].val.allocation_info = place


def _overlapping_caches(plan: Record) -> None:
    places = [each.allocation_info for each in caches(plan)[:2]]
    low, high = sorted(places, key=lambda place: place.memory_offset_low)
    high.memory_offset_low = low.memory_offset_low + 4


def _one_cache_for_two(plan: Record) -> None:
    first, second = caches(plan)[:2]
    first.allocation_info = second.allocation_info


def test_caches_of_several_methods_are_told_unless_they_are_one(tmp_path: Path) -> None:
    """Those that ExecuTorch's planning shares among methods are in memory 2."""
    whole, turns = artifact("peer-xnnpack-8da4w"), ("prefill_forward", "decode_forward")
    program = open_program(under_names(whole, *turns)(tmp_path))
    assert methods_with_own_state(program) == {*turns}
    (found,) = caches_of_each_method(program)
    assert found == Occurrence("methods decode_forward, prefill_forward")

    def shared(plan: Record) -> None:
        for cache in caches(plan):
            cache.allocation_info.memory_id = 2

    assert methods_with_own_state(open_program(edited_method(whole, shared)(tmp_path))) == set()


@pytest.mark.parametrize("edit", [_overlapping_caches, _one_cache_for_two])
def test_caches_at_the_same_place_are_reported(edit: Edit, tmp_path: Path) -> None:
    program = edited_method(artifact("peer-xnnpack-8da4w"), edit)(tmp_path)
    assert method_memory_problems(open_program(program))


@pytest.mark.parametrize(
    "edit", [_over_a_cache, planned_over("aten::slice_copy", "aten::embedding")]
)
def test_overwritten_values_are_reported(edit: Edit, tmp_path: Path) -> None:
    program = edited_method(artifact("peer-xnnpack-8da4w"), edit)(tmp_path)
    problems = method_memory_problems(open_program(program))
    assert problems and all("is written over value" in one for one in problems)


def test_what_has_no_elements_may_lie_anywhere(tmp_path: Path) -> None:
    """Here within a cache."""

    def edit(plan: Record) -> None:
        result = plan.values[plan.outputs[0]].val
        result.sizes = [0, *result.sizes[1:]]
        result.allocation_info = Record(**vars(caches(plan)[0].allocation_info))
        result.allocation_info.memory_offset_low += 4

    program = edited_method(artifact("peer-xnnpack-8da4w"), edit)(tmp_path)
    assert method_memory_problems(open_program(program)) == []


def test_a_number_in_place_of_a_tensor_is_reported(tmp_path: Path) -> None:
    """Of a damaged program, in which the last values are moved by one."""

    def moved(plan: Record) -> None:
        plan.values = [*plan.values[:294], *plan.values[295:], plan.values[294]]

    program = edited_method(artifact("peer-xnnpack-8da4w"), moved)(tmp_path)
    problems = method_memory_problems(open_program(program))
    assert any("value 306, Int in place of a tensor" in problem for problem in problems)


def test_an_attention_of_too_few_arguments_is_no_traceback(tmp_path: Path) -> None:
    """Of a damaged program, in which others are called so."""

    def called_so(plan: Record) -> None:
        for each in plan.operators:
            each.name, each.overload = "llama::sdpa_with_kv_cache", "out"

    program = edited_method(artifact("peer-xnnpack-8da4w"), called_so)(tmp_path)
    assert isinstance(method_memory_problems(open_program(program)), list)


def test_inputs_of_a_vulkan_program_in_one_place_are_a_defect(tmp_path: Path) -> None:
    program = edited_method(CONFORMANCE / "llama_w.pte", _inputs_in_one_place)(tmp_path)
    (finding,) = fatal_findings(open_program(program))
    assert finding.defect == "memory-still-read"
    (place,) = finding.occurrences
    assert place.startswith("value 1, int64[1] of method forward, is written over value 0")
