"""Outputs of a program that no dispatch of the GPU runtime writes."""

from pathlib import Path

import pytest
import torch
from tests.support.devices import needs_gpu
from tests.support.programs import GraphMaker

from quatrain.runtime.wgpu.runner import WgpuRunner

pytestmark = needs_gpu


@pytest.mark.parametrize(("of", "viewed"), [("input", True), ("input", False), ("constant", True)])
def test_an_output_may_be_an_input_or_a_view(of: str, viewed: bool, tmp_path: Path) -> None:
    """With nothing to dispatch for it; another operator reads the input where it is no output. A
    constant itself is refused: a phone never writes it."""
    maker, numbers = GraphMaker(), torch.arange(6.0).reshape(2, 3)
    given = maker.input("float32", 2, 3)
    source = given if of == "input" else maker.constant(numbers.numpy())
    out = source
    if viewed:
        out = maker.tensor("float32", 3, 2)
        maker.call("aten.view_copy.default", source, maker.add_shape(3, 2), out)
    maker.call("aten.neg.default", given, maker.tensor("float32", 2, 3))
    runner = WgpuRunner(maker.save(tmp_path / "view.pte", [out]))
    want = numbers.reshape(3, 2) if viewed else numbers
    assert runner.forward(numbers).equal(want)
    assert runner.forward(numbers).equal(want)
    assert runner.trace((), lambda value_id, computed: computed, numbers).equal(want)


def test_an_output_that_no_operator_touches(tmp_path: Path) -> None:
    maker = GraphMaker()
    given, out = maker.input("float32", 4), maker.tensor("float32", 2, 2)
    maker.call("aten.view_copy.default", given, maker.add_shape(2, 2), out)
    runner = WgpuRunner(maker.save(tmp_path / "view.pte", [out]))
    numbers = torch.arange(4.0)
    assert runner.forward(numbers).equal(numbers.reshape(2, 2))
    assert runner.trace({out}, lambda value_id, x: x + 1, numbers).equal(numbers.reshape(2, 2) + 1)
