"""Whatever two programs compute differently, `diff_programs` names; equal ones it calls equal."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.support.programs import EVERY, GraphMaker, artifact

from quatrain.program import Program, open_program, write_program
from quatrain.program.edit.retarget import retarget
from quatrain.program.edit.slim import slim
from quatrain.program.inspect.diff import ProgramDiff, diff_programs
from quatrain.program.vulkan.graph import Operator, Plain

SOURCE = artifact("peer-8da4w-fp32")


def after(edit: Callable[[Program], object], folder: Path, source: Path = SOURCE) -> ProgramDiff:
    """`source` compared with what `edit` makes of it; both ways must find as much."""
    program = open_program(source)
    edit(program)
    write_program(program, folder / "edited.pte")
    there = diff_programs(open_program(source), open_program(folder / "edited.pte"))
    back = diff_programs(open_program(folder / "edited.pte"), open_program(source))
    assert (len(there.calls), len(there.constants)) == (len(back.calls), len(back.constants))
    return there


def find(program: Program, kind: str, number: int = 0) -> int:
    """The index of an operator of `kind`."""
    operators = program.vulkan.operators
    return [i for i, operator in enumerate(operators) if operator.kind == kind][number]


def change_constant(program: Program, kind: str, argument: str, number: int = 0) -> None:
    """Change the last bit of one constant."""
    graph = program.vulkan
    value_id = graph.operators[find(program, kind, number)].named_args[argument]
    data = bytearray(graph.constant(value_id).tobytes())
    data[-1] ^= 1
    graph.constants[graph.tensor(value_id).constant or 0] = program.add_data(bytes(data))


@pytest.mark.parametrize("name", EVERY)
def test_a_program_and_its_copy_are_the_same(name: str, tmp_path: Path) -> None:
    found = after(lambda program: None, tmp_path, artifact(name))
    assert found.same and found.as_dict()["same"] is True


def test_the_type_of_zero_points(tmp_path: Path) -> None:
    found = after(lambda p: retarget(p, "8da4w", zero_point_dtype="float32"), tmp_path)
    assert not found.same and {d.what for d in found.summary} <= {"bytes"}
    assert len(found.linears) == 15
    assert found.linears[0].first == "8da4w 64×64, groups of 32, int8 zero points"
    assert found.linears[0].second == "8da4w 64×64, groups of 32, float32 zero points"
    assert found.calls[0].what == "layers.0.torchao.choose_qparams_affine before attention.wq"
    assert found.calls[0].second.endswith("float32[1×31])")


def test_the_two_schemes_of_one_checkpoint() -> None:
    found = diff_programs(
        *(open_program(artifact(f"peer-{x}-fp32")) for x in ("8da4w", "weight-only"))
    )
    assert len(found.linears) == 15
    assert found.linears[0].what == "layers.0.attention.wq"
    assert found.linears[0].first == "8da4w 64×64, groups of 32, int8 zero points"
    assert found.linears[0].second == "weight-only 64×64, groups of 32"
    assert {d.what for d in found.summary} == {"bytes", "linear schemes"}
    assert (found.equal_weights, found.compared_weights) == (15, 15)
    assert found.constants == []


@pytest.mark.parametrize(
    "kind, argument, number, what",
    [
        ("et_vk.rms_norm", "weight", 3, "layers.1.et_vk.rms_norm before feed_forward.w1, weight"),
        ("et_vk.rms_norm", "weight", 4, "et_vk.rms_norm before output, weight"),
        ("aten.embedding", "weights", 0, "layers.0.aten.embedding before attention.wq, weights"),
        ("et_vk.prepack", "x", 1, "layers.0.et_vk.prepack 2 before attention.wq, x"),
        ("et_vk.linear_dq8ca_q4gsw", "weights", 4, "layers.0.feed_forward.w1, weights"),
        ("et_vk.linear_dq8ca_q4gsw", "weight_scales", 3, "layers.0.attention.wo, weight_scales"),
        ("et_vk.linear_dq8ca_q4gsw", "weight_sums", 14, "output, weight_sums"),
    ],
)
def test_one_bit_of_one_constant(
    kind: str, argument: str, number: int, what: str, tmp_path: Path
) -> None:
    found = after(lambda p: change_constant(p, kind, argument, number), tmp_path)
    assert [difference.what for difference in found.constants] == [what]
    assert found.constants[0].second == f"{found.constants[0].first}, other bytes"
    assert not found.same and found.calls == found.linears == []
    assert found.equal_weights == (14 if argument == "weights" and "linear" in kind else 15)


def test_bytes_that_are_not_what_their_key_says(tmp_path: Path) -> None:
    program = open_program(SOURCE)
    weights = program.vulkan.operators[find(program, "et_vk.linear_dq8ca_q4gsw")].named_args
    key = program.vulkan.constant_key(weights["weights"])
    start, _ = program.segment_range(program.named_segments[program.named_data.index(str(key))])
    data = bytearray(SOURCE.read_bytes())
    data[start] ^= 1
    (tmp_path / "patched.pte").write_bytes(data)
    found = diff_programs(program, open_program(tmp_path / "patched.pte"))
    assert [difference.what for difference in found.constants] == ["layers.0.attention.wq, weights"]


def test_a_fixed_argument(tmp_path: Path) -> None:
    def edit(program: Program) -> None:
        graph = program.vulkan
        operator = graph.operators[index := find(program, "et_vk.rms_norm", 1)]
        graph.values.append(Plain("double", 0.5))
        args = (*operator.args[:2], len(graph.values) - 1, operator.out)
        graph.operators[index] = replace(operator, args=args)

    found = after(edit, tmp_path)
    assert [(d.what, d.second) for d in found.calls] == [
        ("layers.0.et_vk.rms_norm before feed_forward.w1", "eps 0.5")
    ]


def test_an_operator_more(tmp_path: Path) -> None:
    def edit(program: Program) -> None:
        graph = program.vulkan
        norm = graph.operators[index := find(program, "et_vk.rms_norm", 1)]
        graph.operators.insert(index + 1, Operator("aten.relu.default", (norm.out, norm.out)))

    found = after(edit, tmp_path)
    assert [(d.what, d.first, d.second) for d in found.calls] == [
        ("layers.0.aten.relu before feed_forward.w1", "absent", "present")
    ]


def test_connections_and_memory(tmp_path: Path) -> None:
    def swap(program: Program) -> None:
        graph = program.vulkan
        add = graph.operators[index := find(program, "aten.add", 1)]
        graph.operators[index] = replace(add, args=(add.args[1], add.args[0], *add.args[2:]))

    def move(program: Program) -> None:
        graph = program.vulkan
        norm = graph.operators[find(program, "et_vk.rms_norm")].out
        graph.values[norm] = replace(graph.tensor(norm), mem_obj_id=None)

    def texture(program: Program) -> None:
        graph = program.vulkan
        norm = graph.operators[find(program, "et_vk.rms_norm")].out
        graph.values[norm] = replace(graph.tensor(norm), storage="texture2d")

    for edit, second in (
        (swap, "connected in another way"),
        (move, "another plan"),
        (texture, "another plan"),
    ):
        found = after(edit, tmp_path)
        assert [d.second for d in found.summary if d.what != "bytes"] == [second], edit
        assert not found.same and found.calls == found.constants == []


def test_slimming_shows_the_operators_that_went(tmp_path: Path) -> None:
    found = after(slim, tmp_path)
    gone = [d.what for d in found.calls if d.second == "absent"]
    kind = "torchao.choose_qparams_affine before"
    assert [what for what in gone if kind in what][:3] == [
        f"layers.0.{kind} {x}" for x in ("attention.wk", "attention.wv", "feed_forward.w3")
    ]
    # Of each layer these, and a view in the shape that its value has.
    assert len(gone) == 8 and found.equal_weights == 15


def test_what_is_inside_an_unread_delegate_is_compared_as_bytes(tmp_path: Path) -> None:
    source = artifact("peer-xnnpack-8da4w")
    program = open_program(source)
    parts = {
        "delegates that are not read": sorted(program.delegate_segments)[-1],
        "data of the delegates": program.named_segments[-1],
        "data outside the delegates": program.root.constant_segment.segment_index,
    }
    for what, segment in parts.items():
        start, size = program.segment_range(segment)
        data = bytearray(source.read_bytes())
        data[start + size - 1] ^= 1
        (tmp_path / "patched.pte").write_bytes(data)
        found = diff_programs(program, open_program(tmp_path / "patched.pte"))
        assert [d.what for d in found.summary] == [what]
        assert found.hidden == ["XnnpackBackend"]


def test_constants_outside_the_file_are_compared_by_their_keys(tmp_path: Path) -> None:
    def drop(program: Program) -> None:
        program.dropped_keys.update(program.named_data)

    found = after(drop, tmp_path)
    assert found.constants == [] and len(found.external_constants) == 54
    assert (found.equal_weights, found.compared_weights) == (0, 0)  # no byte of them is here
    assert {d.what for d in found.summary} == {"bytes"}


def test_graphs_without_linears(tmp_path: Path) -> None:
    paths = []
    for name, number in (("a", 1.0), ("b", 2.0)):
        maker = GraphMaker()
        x, out = maker.input("float32", 4), maker.tensor("float32", 4)
        maker.call("aten.mul.Tensor", x, maker.constant(np.full(4, number, np.float32)), out)
        paths.append(maker.save(tmp_path / f"{name}.pte", [out]))
    found = diff_programs(*map(open_program, paths))
    assert [d.what for d in found.constants] == ["aten.mul after the last linear, b"]
    assert found.calls == []
