"""Constants stored twice or never used."""

from pathlib import Path

import numpy as np
import pytest
from tests.support.programs import GraphMaker

from quatrain.program import open_program, write_program
from quatrain.program.edit.slim import slim
from quatrain.program.inspect.report import inspect_program


def _wasteful(tmp_path: Path) -> Path:
    maker = GraphMaker()
    array = np.arange(1000, dtype=np.float32)
    first, second = maker.constant(array), maker.constant(array.copy())
    maker.data["nobody_asks"] = bytes(500)
    out = maker.tensor("float32", 1000)
    maker.call("aten.mul.Tensor", first, second, out)
    return maker.save(tmp_path / "wasteful.pte", [out])


def test_equal_constants_are_stored_once_and_unused_ones_go(tmp_path: Path) -> None:
    program = open_program(_wasteful(tmp_path))
    waste = {w.what: w.bytes for w in inspect_program(program).waste}
    assert waste == {
        "constants stored more than once": 4000,
        "constants that nothing uses": 500,
    }
    assert slim(program).constant_bytes == 4500
    write_program(program, tmp_path / "slim.pte")
    slimmed = open_program(tmp_path / "slim.pte")
    assert len(slimmed.named_data) == 1
    assert inspect_program(slimmed).waste == []
    graph = slimmed.vulkan
    a, b = (graph.constant(i) for i in graph.operators[0].args[:2])
    assert np.array_equal(a, np.arange(1000)) and np.array_equal(a, b)
    # Two values still: a runtime before 1.3 frees a value's constant after its first prepack.
    assert graph.operators[0].args[0] != graph.operators[0].args[1]


@pytest.mark.parametrize("tied", [True, False])
def test_an_embedding_that_the_output_layer_repeats_is_waste(tied: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(-8, 8, (32, 64))
    packed = ((values[:, 1::2] + 8) << 4 | (values[:, ::2] + 8)).astype(np.uint8)
    table = values * 0.5 if tied else rng.normal(size=(32, 64))
    maker = GraphMaker()
    tokens = maker.input("int32", 1, 4)
    weights = maker.constant(table.astype(np.float32))
    no, one = maker.plain("bool", False), maker.plain("int", -1)
    rows, logits = maker.tensor("float32", 1, 4, 64), maker.tensor("float32", 1, 4, 32)
    maker.call("aten.embedding.default", weights, tokens, one, no, no, rows)
    output, scales = maker.constant(packed), maker.constant(np.full((2, 32), 0.5, np.float32))
    group, null = maker.plain("int", 32), maker.plain("null")
    maker.call("et_vk.linear_q4gsw.default", rows, output, scales, group, null, logits)
    report = inspect_program(open_program(maker.save(tmp_path / "tied.pte", [logits])))
    assert [waste.bytes for waste in report.waste] == ([32 * 64 * 4] if tied else [])
