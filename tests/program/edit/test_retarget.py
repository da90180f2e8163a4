"""From one scheme to the other and back: bit-identical logits, nothing left over."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.defects.edited_methods import edited_method, of_two_delegates, under_names
from tests.support.defects.kernel_defects import weight_only
from tests.support.defects.load_checks import linear as linear_of
from tests.support.programs import artifact, run_tokens

from quatrain.errors import InputError
from quatrain.program import open_program, write_program
from quatrain.program.edit.retarget import retarget
from quatrain.program.edit.selection import Selection, parse_layers
from quatrain.program.edit.slim import slim
from quatrain.program.inspect.linears import find_linears
from quatrain.program.vulkan.memory import memory_conflicts
from quatrain.program.vulkan.packed_weights import group_sums
from quatrain.runtime.load import load_runner
from quatrain.targets import examine, fatal_findings

DYNAMIC = [
    "peer-8da4w-fp32", "peer-8da4w-fp32-emb4", "peer-8da4w-fp16-emb4", "peer-qwen-8da4w-fp32",
]  # fmt: skip


def changed(source: Path, output: Path, scheme: str, **options) -> Path:
    program = open_program(source)
    retarget(program, scheme, **options)
    assert memory_conflicts(program.vulkan) == []
    write_program(program, output)
    assert open_program(output).vulkan == program.vulkan
    return output


def kinds(path: Path) -> set[str]:
    return {operator.kind for operator in open_program(path).vulkan.operators}


def test_8da4w_becomes_the_weight_only_program_that_the_checkpoint_gives(tmp_path: Path) -> None:
    output = changed(artifact("peer-8da4w-fp32"), tmp_path / "wo.pte", "weight-only")
    assert run_tokens(output).equal(run_tokens(artifact("peer-weight-only-fp32")))
    keys = set(open_program(output).named_data)
    assert keys == set(open_program(artifact("peer-weight-only-fp32")).named_data)


def test_weight_only_becomes_the_8da4w_program_that_the_checkpoint_gives(tmp_path: Path) -> None:
    output = changed(artifact("peer-weight-only-fp32"), tmp_path / "dyn.pte", "8da4w")
    assert run_tokens(output).equal(run_tokens(artifact("peer-8da4w-fp32")))
    keys = set(open_program(output).named_data)
    assert keys == set(open_program(artifact("peer-8da4w-fp32")).named_data)


@pytest.mark.parametrize("name", DYNAMIC)
def test_there_and_back_gives_the_originals_logits(name: str, tmp_path: Path) -> None:
    there = changed(artifact(name), tmp_path / "there.pte", "weight-only")
    assert kinds(there).isdisjoint({"torchao.choose_qparams_affine", "et_vk.linear_dq8ca_q4gsw"})
    assert there.stat().st_size < artifact(name).stat().st_size
    back = changed(there, tmp_path / "back.pte", "8da4w")
    assert run_tokens(back).equal(run_tokens(artifact(name)))
    assert not run_tokens(back).equal(run_tokens(there))
    again = changed(back, tmp_path / "again.pte", "weight-only")
    assert again.read_bytes() == there.read_bytes()


def test_a_fp16_weight_only_program_becomes_8da4w(tmp_path: Path) -> None:
    output = changed(artifact("peer-weight-only-fp16"), tmp_path / "dyn.pte", "8da4w")
    graph = open_program(output).vulkan
    linear = next(op for op in graph.operators if op.kind == "et_vk.linear_dq8ca_q4gsw")
    assert graph.tensor(linear.named_args["input_scales"]).dtype == "float16"
    assert graph.tensor(linear.named_args["input_zero_points"]).dtype == "int8"
    assert bool(torch.isfinite(run_tokens(output)).all())


@pytest.mark.parametrize("name", DYNAMIC)
def test_group_sums_equal_those_of_the_peer(name: str) -> None:
    graph = open_program(artifact(name)).vulkan
    for linear in find_linears(graph):
        names = graph.operators[linear.operator].named_args
        sums = group_sums(graph.constant(names["weights"]), linear.group_size or 0)
        assert np.array_equal(sums, graph.constant(names["weight_sums"]))


def test_layers_and_linears_make_a_mixed_program(tmp_path: Path) -> None:
    selection = Selection(parse_layers("1"), ("q", "*.w2"))
    source, output = artifact("peer-8da4w-fp32"), tmp_path / "mixed.pte"
    changed(source, output, "weight-only", selection=selection)
    linears = find_linears(open_program(output).vulkan)
    weight_only = [lin.name for lin in linears if lin.scheme == "weight-only"]
    assert weight_only == ["layers.1.attention.wq", "layers.1.feed_forward.w2"]
    logits = run_tokens(output)
    assert not logits.equal(run_tokens(source))
    assert logits.isclose(run_tokens(source), rtol=0.2, atol=0.5).all()
    back = changed(output, tmp_path / "back.pte", "8da4w")
    assert run_tokens(back).equal(run_tokens(source))


ZERO_POINTS = {
    "int8": ("peer-8da4w-fp32", "peer-weight-only-fp32"),
    "float32": ("peer-8da4w-fp32", "peer-weight-only-fp32"),
    "float16": ("peer-8da4w-fp16-emb4",),
}


@pytest.mark.parametrize("dtype", ZERO_POINTS)
def test_the_zero_points_type_is_selectable_and_does_not_change_logits(
    dtype: str, tmp_path: Path
) -> None:
    dynamic, *others = ZERO_POINTS[dtype]
    for name in (dynamic, *others):
        output = changed(artifact(name), tmp_path / "x.pte", "8da4w", zero_point_dtype=dtype)
        graph = open_program(output).vulkan
        linears = [op for op in graph.operators if op.kind == "et_vk.linear_dq8ca_q4gsw"]
        found = {graph.tensor(op.named_args["input_zero_points"]).dtype for op in linears}
        assert found == {dtype}
        assert run_tokens(output).equal(run_tokens(artifact(dynamic)))


@pytest.mark.parametrize("name", ["peer-8da4w-fp32", "peer-weight-only-fp16"])
def test_zero_points_in_a_type_that_phones_read_otherwise_are_refused(name: str) -> None:
    program = open_program(artifact(name))
    computed, other = ("float32", "float16")[:: 1 if name.endswith("fp32") else -1]
    with pytest.raises(InputError, match=rf"wq of .*{computed}, .* Give int8 or {computed}\."):
        retarget(program, "8da4w", zero_point_dtype=other)


REFUSED = {
    "rows in a buffer that are no multiple of 4": (
        weight_only(channels=10, storage="buffer"), "dq8ca-n4", "rows of 10 output channels",
    ),
    "scales that the other kernel converts": (
        weight_only(dtype="float16", scales_in="float32"), "types-differ", "scales of float32",
    ),
}  # fmt: skip
TAKEN = [
    weight_only(channels=10), weight_only(1, channels=10, storage="buffer"),
    weight_only(channels=12, storage="buffer"), weight_only(dtype="float16"),
]  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_weight_only_linear_that_8da4w_would_compute_wrongly_is_refused(
    case: str, tmp_path: Path, monkeypatch
) -> None:
    """And the doctor finds the defect that it would have had."""
    make, defect, message = REFUSED[case]
    source = make(tmp_path)
    before = {finding.defect for finding in examine(open_program(source))}
    with pytest.raises(InputError, match=f"{message}.*Leave it weight-only"):
        retarget(open_program(source), "8da4w")
    for check in ("require_separate_rows", "require_types_as_read"):
        monkeypatch.setattr(f"quatrain.program.edit.retarget.{check}", lambda *_: None)
    program = open_program(source)
    retarget(program, "8da4w")
    assert defect in {finding.defect for finding in examine(program)} - before


@pytest.mark.parametrize("make", TAKEN)
def test_what_8da4w_computes_rightly_is_converted(make, tmp_path: Path) -> None:
    program = open_program(make(tmp_path))
    before = {finding.defect for finding in fatal_findings(program)}
    assert retarget(program, "8da4w")
    assert {finding.defect for finding in fatal_findings(program)} <= before


def test_linears_whose_zero_points_change_count_as_changed() -> None:
    program = open_program(artifact("peer-8da4w-fp32"))
    assert retarget(program, "8da4w", zero_point_dtype="int8") == []
    assert len(retarget(program, "8da4w", Selection(frozenset([1])), "float32")) == 7
    assert len(retarget(program, "8da4w", zero_point_dtype="float32")) == 8
    assert {linear.zero_points for linear in find_linears(program.vulkan)} == {"float32"}
    retarget(program, "weight-only", Selection(frozenset([0])))
    changed = retarget(program, "8da4w", zero_point_dtype="int8")
    assert [linear.scheme for linear in changed] == ["weight-only"] * 7 + ["8da4w"] * 8
    assert {linear.zero_points for linear in find_linears(program.vulkan)} == {"int8"}


@pytest.mark.parametrize("name", DYNAMIC)
def test_slim_shares_qparams_and_keeps_logits(name: str, tmp_path: Path) -> None:
    program = open_program(artifact(name))
    before = sum(op.kind == "torchao.choose_qparams_affine" for op in program.vulkan.operators)
    removed = slim(program)
    layers = (before - 1) // 7
    # k, v with q, and up with gate; and a view in the shape that its value has.
    assert removed.operators == 4 * layers
    found = sum(op.kind == "torchao.choose_qparams_affine" for op in program.vulkan.operators)
    assert found == before - 3 * layers
    assert memory_conflicts(program.vulkan) == []
    write_program(program, tmp_path / "slim.pte")
    assert run_tokens(tmp_path / "slim.pte").equal(run_tokens(artifact(name)))
    assert slim(open_program(tmp_path / "slim.pte")).operators == 0


def qparams_read(program) -> dict[str, tuple[int, ...]]:
    """Which values of scale and zero point each 8da4w linear reads, by name."""
    graph = program.vulkan
    return {
        linear.name: graph.operators[linear.operator].args[1:3]
        for linear in find_linears(graph)
        if linear.scheme == "8da4w"
    }


def test_retargeting_chooses_once_for_all_that_read_one_activation(tmp_path: Path) -> None:
    program = open_program(changed(artifact("peer-weight-only-fp32"), tmp_path / "d.pte", "8da4w"))
    read = qparams_read(program)
    assert len(read) == 15
    assert len(set(read.values())) == 9  # of the two layers' 14 linears 8, and the output layer's
    for layer in ("layers.0", "layers.1"):
        q, k, v = (read[f"{layer}.attention.{name}"] for name in ("wq", "wk", "wv"))
        assert q == k == v
        assert read[f"{layer}.feed_forward.w1"] == read[f"{layer}.feed_forward.w3"]
    slim(program)
    assert len(set(qparams_read(program).values())) == 9


def test_zero_points_of_one_linear_alone_leave_those_it_shared_as_they_are(tmp_path: Path) -> None:
    program = open_program(changed(artifact("peer-weight-only-fp32"), tmp_path / "d.pte", "8da4w"))
    retarget(program, "8da4w", Selection(patterns=("layers.0.attention.wk",)), "float32")
    found = {linear.name: linear.zero_points for linear in find_linears(program.vulkan)}
    assert [name for name, dtype in found.items() if dtype == "float32"] == [
        "layers.0.attention.wk"
    ]
    assert memory_conflicts(program.vulkan) == []
    write_program(program, tmp_path / "one.pte")
    assert run_tokens(tmp_path / "one.pte").equal(run_tokens(artifact("peer-8da4w-fp32")))


def test_bad_requests_are_refused() -> None:
    program = open_program(artifact("peer-8da4w-fp32"))
    for selection, message in (
        (Selection(frozenset(range(99))), "has no layer 2; its layers are 0-1"),
        (Selection(patterns=("q", "zzz")), "matches 'zzz'; the roles are q, k, v, o, gate"),
        (Selection(frozenset([0]), ("output",)), "of the layers given matches output"),
    ):
        with pytest.raises(InputError, match=message):
            retarget(program, "weight-only", selection)
    with pytest.raises(InputError, match="weight-only linears have no zero points"):
        retarget(program, "weight-only", zero_point_dtype="int8")
    with pytest.raises(InputError, match="2-1 is reversed; write 1-2"):
        parse_layers("0,2-1")
    with pytest.raises(InputError, match="is no linear scheme"):
        retarget(program, "4da8w")
    with pytest.raises(InputError, match="is no zero-point type"):
        retarget(program, "8da4w", zero_point_dtype="int4")
    with pytest.raises(InputError, match="no Vulkan delegate"):
        retarget(open_program(artifact("peer-xnnpack-8da4w")), "8da4w")
    for text in ("", "a", "1-", "-3", "1,,2", "0-99999999999"):
        with pytest.raises(InputError, match="expected numbers and ranges"):
            parse_layers(text)
    assert parse_layers("0-2, 5") == {0, 1, 2, 5}


def test_all_delegates_of_a_program_change(tmp_path: Path) -> None:
    """As the only one of a program does; layers are told of methods that are one delegate each."""
    source = artifact("peer-8da4w-fp32")
    for layers in (None, frozenset([1])):
        alone, both = (
            open_program(source),
            open_program(under_names(source, "decode", "prefill")(tmp_path)),
        )
        for program in (alone, both):
            retarget(program, "weight-only", Selection(layers))
            slim(program)
        write_program(both, tmp_path / "both.pte")
        written = open_program(tmp_path / "both.pte")
        assert [delegate.method for delegate in written.delegates] == ["decode", "prefill"]
        assert written.graphs == [alone.vulkan, alone.vulkan]


def test_layers_of_a_method_of_several_delegates_are_unknown(tmp_path: Path) -> None:
    program = open_program(edited_method(artifact("peer-8da4w-fp32"), of_two_delegates)(tmp_path))
    before = [list(graph.operators) for graph in program.graphs]
    with pytest.raises(InputError, match=r"method forward is 2 Vulkan delegates.*leave --layers"):
        retarget(program, "weight-only", Selection(patterns=("q",)))
    assert [graph.operators for graph in program.graphs] == before
    assert len(retarget(program, "weight-only")) == 30
    with pytest.raises(InputError, match=r"has 2 Vulkan delegates \(2 of forward\), expected one"):
        load_runner(program)
    with pytest.raises(InputError, match=r"does not have \(it has [^)]*\)\.$"):
        load_runner(program, "executorch")


def test_output_channels_that_a_phone_does_not_load_weight_only_are_refused() -> None:
    program = open_program(artifact("peer-8da4w-fp32"))
    graph = program.vulkan
    output = find_linears(graph)[-1]
    weights = graph.operators[output.operator].named_args["weights"]
    rows, columns = graph.tensor(weights).shape
    graph.values[weights] = replace(graph.tensor(weights), shape=(rows - 2, columns))
    before = list(graph.operators)
    with pytest.raises(InputError, match=rf"output has {rows - 2} output channels.*multiple of 4"):
        retarget(program, "weight-only")
    assert graph.operators == before
    assert len(retarget(program, "weight-only", Selection(patterns=("layers.*",)))) == 14


def test_inputs_that_8da4w_does_not_load_stay_weight_only(tmp_path: Path) -> None:
    program = open_program(linear_of(12)(tmp_path))
    with pytest.raises(InputError, match=r"weights of 12 input channels, .* multiple of 8 alone"):
        retarget(program, "8da4w")
    assert retarget(open_program(linear_of(12, filled=16)(tmp_path)), "8da4w")
