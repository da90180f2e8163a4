"""What `inspect` says, as data."""

import json
from pathlib import Path

import pytest
from tests.support.defects.edited_methods import edited_method, of_two_delegates, under_names
from tests.support.programs import EVERY, GraphMaker, artifact

from quatrain.program import open_program, write_program
from quatrain.program.inspect.report import ProgramReport, inspect_program, tensor_text


def report(name: str) -> ProgramReport:
    return inspect_program(open_program(artifact(name)))


@pytest.mark.parametrize("name", EVERY)
def test_every_byte_is_accounted_for(name: str) -> None:
    found = report(name)
    assert sum(found.bytes_by_kind.values()) == artifact(name).stat().st_size
    json.dumps(found.as_dict())


def test_what_a_report_holds() -> None:
    found = report("peer-8da4w-fp16-emb4")
    assert found.schemes == {"8da4w": 15}
    assert (found.layers, found.context_length, found.dynamic_shapes) == (2, 32, True)
    assert found.activation_dtype == "float16"
    assert found.embedding == "int4 [64, 64], groups of 32"
    assert found.inputs == ["int32[1, 31]", "int32[1]"]
    assert found.outputs == ["float32[1, 64]"]
    assert found.outside == {}
    assert found.delegates[0].backend == "VulkanBackend"
    assert {w.what for w in found.waste} == {"KV caches stored as zeros"}
    # 7 linears of 2 layers: 4096 + 2 * 2048 + 4096 + 3 * 6144 values in nibbles.
    assert found.bytes_by_kind["int4 weights"] == 2 * (4096 + 2 * 2048 + 4096 + 3 * 6144) // 2


def test_several_delegates_are_all_in_a_report(tmp_path: Path) -> None:
    source = artifact("peer-8da4w-fp16-emb4")
    alone = report("peer-8da4w-fp16-emb4")
    for make, place in (
        (under_names(source, "decode", "prefill"), "prefill: layers.0.attention.wq"),
        (edited_method(source, of_two_delegates), "delegate 1, operator_"),
    ):
        path = make(tmp_path)
        found = inspect_program(open_program(path))
        assert sum(found.bytes_by_kind.values()) == path.stat().st_size
        assert found.schemes == {"8da4w": 30}
        assert any(linear.name.startswith(place) for linear in found.linears)
        assert found.kv_cache.bytes == 2 * alone.kv_cache.bytes  # each delegate has its own
        assert (found.embedding, found.activation_dtype) == (alone.embedding, "float16")
        assert "not used by a delegate" not in found.bytes_by_kind


def test_an_unstated_context_is_not_in_the_metadata(tmp_path: Path) -> None:
    """It is as long as a call, and what says so is named."""
    assert report("peer-8da4w-fp32").context_from == "get_max_context_len"
    stated = artifact("peer-8da4w-fp32").read_bytes()
    path = tmp_path / "m.pte"
    path.write_bytes(stated.replace(b"get_max_context_len", b"get_max_another_len"))
    found = inspect_program(open_program(path))
    assert (found.context_length, found.context_from) == (32, "get_max_seq_len")
    assert "get_max_context_len" not in found.metadata


def test_a_program_of_another_backend() -> None:
    found = report("peer-xnnpack-8da4w")
    assert found.outside["llama.custom_sdpa.out"] == 2
    assert found.linears == [] and found.waste == []
    assert all(delegate.operators is None for delegate in found.delegates)


def test_a_tensor_without_dimensions_has_no_size() -> None:
    maker = GraphMaker()
    assert tensor_text(maker.graph, maker.tensor("float32")) == "f32[]"
    assert tensor_text(maker.graph, maker.tensor("int32", 1, 8)) == "i32[1×8]"


def test_constants_in_another_file_do_not_stop_a_report(tmp_path: Path) -> None:
    program = open_program(artifact("peer-8da4w-fp32"))
    program.dropped_keys.update(program.named_data)
    write_program(program, tmp_path / "external.pte")
    found = inspect_program(open_program(tmp_path / "external.pte"))
    assert len(found.linears) == 15
    assert set(found.bytes_by_kind) <= {"graph", "padding"}
    assert sum(found.bytes_by_kind.values()) == found.bytes
