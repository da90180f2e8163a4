"""Layer and role of each linear, found from the graph alone."""

from pathlib import Path

import numpy as np
import pytest
from tests.support.programs import VULKAN, GraphMaker, artifact

from quatrain.program import open_program
from quatrain.program.inspect.linears import find_linears
from quatrain.program.vulkan.memory import memory_conflicts

ROLES = ["q", "k", "v", "o", "gate", "up", "down"]


@pytest.mark.parametrize("name", VULKAN)
def test_every_linear_of_the_peers_programs_has_its_place(name: str) -> None:
    linears = find_linears(open_program(artifact(name)).vulkan)
    layers = 1 if "qwen" in name else 2
    expected = [(layer, role) for layer in range(layers) for role in ROLES]
    assert [(lin.layer, lin.role) for lin in linears] == [*expected, (None, "output")]
    first, last = linears[0], linears[-1]
    assert (first.name, first.out_features, first.in_features) == ("layers.0.attention.wq", 64, 64)
    assert (last.name, last.out_features, last.group_size) == ("output", 64, 32)
    assert {lin.scheme for lin in linears} == {"weight-only" if "weight-only" in name else "8da4w"}
    assert linears[0].has_bias == ("qwen" in name)


def test_roles_come_from_dataflow_not_from_order(tmp_path: Path) -> None:
    """Keys before queries, `up` before `gate`, a SiLU, and heads split by permutes."""
    maker = GraphMaker()
    x = maker.input("float32", 1, 4, 8)
    null, one = maker.plain("null"), maker.plain("int", 1)
    made: dict[str, int] = {}

    def linear(role: str, source: int) -> int:
        made[role] = len(maker.graph.operators)
        weight = maker.constant(np.ones((8, 8), dtype=np.float32))
        out = maker.tensor("float32", 1, 4, 8)
        maker.call("aten.linear.default", source, weight, null, out)
        return out

    def heads(source: int) -> int:
        shape = maker.add_shape(1, 4, 2, 4)
        split, turned = maker.tensor("float32", 1, 4, 2, 4), maker.tensor("float32", 1, 2, 4, 4)
        maker.call("aten.view_copy.default", source, shape, split)
        order = maker.plain("int_list", (0, 2, 1, 3))
        maker.call("aten.permute_copy.default", split, order, turned)
        return turned

    key, value, query = (heads(linear(role, x)) for role in ("k", "v", "q"))
    attended, flat = maker.tensor("float32", 1, 2, 4, 4), maker.tensor("float32", 1, 4, 8)
    maker.call("et_vk.sdpa.default", query, key, value, null, null, attended)
    maker.call("aten.view_copy.default", attended, maker.add_shape(1, 4, 8), flat)
    up, gate = linear("up", linear("o", flat)), linear("gate", flat)
    silu, product = maker.tensor("float32", 1, 4, 8), maker.tensor("float32", 1, 4, 8)
    maker.call("aten.silu.default", gate, silu)
    maker.call("aten.mul.Tensor", silu, up, product)
    summed = maker.tensor("float32", 1, 4, 8)
    maker.call("aten.add.Tensor", linear("down", product), flat, one, summed)
    out = linear("output", summed)
    graph = open_program(maker.save(tmp_path / "odd.pte", [out])).vulkan
    # `up` reads what `o` wrote here only so that one is before the other.
    assert {lin.role: lin.operator for lin in find_linears(graph)} == made


@pytest.mark.parametrize("beside", [True, False])
def test_adaptors_are_not_linears_of_the_model(beside: bool) -> None:
    """`output(x) + B(A(x))` in QLoRA's layout; not where A takes something else, as a residual."""
    maker = GraphMaker()
    x, null = maker.input("float32", 1, 4, 8), maker.plain("null")

    def linear(source: int, rows: int, columns: int) -> int:
        weight = maker.constant(np.ones((rows, columns), dtype=np.float32))
        out = maker.tensor("float32", 1, 4, rows)
        maker.call("aten.linear.default", source, weight, null, out)
        return out

    flat, other, summed = (maker.tensor("float32", 1, 4, 8) for _ in range(3))
    maker.call("aten.view_copy.default", x, maker.add_shape(1, 4, 8), flat)
    maker.call("aten.neg.default", x, other)
    whole = linear(x, 8, 8)
    part = linear(linear(flat if beside else other, 2, 8), 8, 2)
    maker.call("aten.add.Tensor", whole, part, maker.plain("int", 1), summed)
    maker.graph.outputs = [summed]
    found = [(one.name, one.role) for one in find_linears(maker.graph)]
    if beside:
        assert found == [
            ("output", "output"),
            ("output.adaptor.A", "adaptor of output"),
            ("output.adaptor.B", "adaptor of output"),
        ]
    else:
        assert [name for name, _ in found] == ["output", "output_intermediate", "output"]


def test_linears_in_a_circle_have_an_end() -> None:
    """As in a damaged program: what looks like a rotation before `down` feeds itself."""
    maker = GraphMaker()
    x, null = maker.input("float32", 1, 8), maker.plain("null")
    weight = maker.constant(np.ones((8, 8), dtype=np.float32))
    gate, silu, product, turned = (maker.tensor("float32", 1, 8) for _ in range(4))
    piece = maker.tensor("float32", 1, 4)
    maker.call("et_vk.sdpa.default", x, x, x, null, null, x)
    maker.call("aten.linear.default", x, weight, null, gate)
    maker.call("aten.silu.default", gate, silu)
    maker.call("aten.mul.Tensor", silu, gate, product)
    for source in (product, turned):
        maker.call("aten.view_copy.default", source, maker.add_shape(1, 4), piece)
    maker.call("aten.linear.default", piece, weight, null, turned)
    maker.graph.outputs = [turned]
    roles = {linear.role for linear in find_linears(maker.graph)}
    assert "rotation" in roles and "down" not in roles


@pytest.mark.parametrize("name", VULKAN)
def test_the_peers_memory_plan_has_no_conflicts(name: str) -> None:
    assert memory_conflicts(open_program(artifact(name)).vulkan) == []


def test_a_memory_conflict_is_seen() -> None:
    maker = GraphMaker()
    x = maker.input("float32", 2)
    first, second = (maker.tensor("float32", 2, mem_obj_id=3) for _ in range(2))
    out = maker.tensor("float32", 2)
    maker.call("aten.sigmoid.default", x, first)
    maker.call("aten.neg.default", x, second)
    maker.call("aten.mul.Tensor", first, second, out)
    maker.graph.outputs = [out]
    assert memory_conflicts(maker.graph) == [(first, second)]


def test_a_graph_that_runs_in_a_circle_is_read(tmp_path: Path) -> None:
    maker = GraphMaker()
    q, null = maker.tensor("float32", 1, 1, 1, 8), maker.plain("null")
    out = maker.tensor("float32", 1, 1, 1, 8)
    maker.call("aten.clone.default", q, null, q)
    maker.call("et_vk.sdpa.default", q, q, q, null, null, out)
    assert find_linears(open_program(maker.save(tmp_path / "circle.pte", [out])).vulkan) == []
