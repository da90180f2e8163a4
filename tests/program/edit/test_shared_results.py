"""The mask of attention is computed once for all layers that have the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.support.paths import CONFORMANCE

from quatrain.program import open_program
from quatrain.program.edit.compact import compact
from quatrain.program.edit.replicated_layers import canonical
from quatrain.program.edit.shared_results import share_masks
from quatrain.program.vulkan.memory import memory_conflicts
from quatrain.runtime.reference import ReferenceRunner


@pytest.fixture
def program():
    """Of three layers with soft caps, the first and the last with a window."""
    return open_program(CONFORMANCE / "capped_w.pte")


def _masks(graph):
    return [operator for operator in graph.operators if operator.kind == "aten.where"]


def _again(graph, operator, renamed):
    """`operator` again, with results of its own, from those that were made again before."""
    for out in graph.outputs_of(operator):
        renamed[out] = len(graph.values)
        graph.values.append(replace(graph.values[out]))
    return replace(operator, args=tuple(renamed.get(i, i) for i in operator.args))


def test_layers_of_one_window_have_one_mask(program):
    assert len(_masks(program.vulkan)) == 2


def test_a_mask_made_again_is_shared(program):
    graph = program.vulkan
    before, masks = canonical(graph), _masks(graph)
    made = {"aten.slice_copy", "aten.le", "aten.ge", "aten.logical_and", "aten.where"}
    tables = {"int32", "bool"}
    renamed: dict[int, int] = {}
    operators = list(graph.operators)
    end = operators.index(masks[0])
    cone = [
        op for op in operators[: end + 1]
        if op is masks[0] or (op.kind in made and graph.tensor(op.out).dtype in tables)
    ]  # fmt: skip
    again = [_again(graph, operator, renamed) for operator in cone]
    # The last layer reads the mask that is made again.
    last = max(i for i, op in enumerate(operators) if masks[0].out in op.args)
    operators[last] = replace(
        operators[last], args=tuple(renamed.get(i, i) for i in operators[last].args)
    )
    graph.operators = [*operators[: end + 1], *again, *operators[end + 1 :]]
    share_masks(graph)
    compact(graph)
    assert len(_masks(graph)) == 2 and not memory_conflicts(graph)
    assert len(graph.operators) == len(before.operators)
    recorded = np.load(CONFORMANCE / "capped_w.npz")
    tokens = torch.from_numpy(recorded["tokens"]).long()
    found = ReferenceRunner(program).forward(tokens, torch.tensor([0])).reshape(-1)
    assert found.numpy() == pytest.approx(recorded["prefill_33"], abs=1e-5)


def test_masks_of_what_many_layers_made(program):
    """Each of which reads what the one before it made twice, as a mixture of experts does."""
    graph = program.vulkan
    mask = _masks(graph)[-1]
    add = next(operator for operator in graph.operators if operator.kind == "aten.add")
    value = add.out
    for _ in range(2000):
        graph.values.append(graph.values[add.out])
        added = replace(add, args=(value, value, *add.args[2:-1], len(graph.values) - 1))
        graph.operators.append(added)
        value = added.out
    graph.values.append(graph.values[add.out])
    args = (mask.args[0], value, value, len(graph.values) - 1)
    graph.operators.append(replace(mask, args=args))
    share_masks(graph)
    assert len(_masks(graph)) == 3
