"""Comparisons and changes of type on the GPU, as torch has them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.support.devices import needs_gpu
from tests.support.programs import GraphMaker

from quatrain.errors import InputError
from quatrain.runtime.wgpu.runner import WgpuRunner

pytestmark = needs_gpu


@pytest.mark.parametrize("name", ["eq", "ge", "gt", "le", "lt"])
@pytest.mark.parametrize("scalar", [True, False])
def test_comparisons(name: str, scalar: bool, tmp_path: Path) -> None:
    maker = GraphMaker()
    a, out = maker.input("float32", 3), maker.tensor("bool", 3)
    b = maker.plain("double", -0.5) if scalar else maker.input("float32", 3)
    maker.call(f"aten.{name}.{'Scalar' if scalar else 'Tensor'}", a, b, out)
    runner = WgpuRunner(maker.save(tmp_path / "one.pte", [out]))
    x, y = torch.tensor([-1.0, -0.5, 2]), torch.tensor([-0.5, -0.5, -0.5])
    compare: Callable = getattr(torch, name)
    assert runner.forward(*([x] if scalar else [x, y])).equal(compare(x, y))


@pytest.mark.parametrize("source", ["float32", "float16", "int32", "bool"])
@pytest.mark.parametrize("target", ["float32", "int32", "bool"])
def test_changes_of_type(source: str, target: str, tmp_path: Path) -> None:
    runner = WgpuRunner(converting(source, target, tmp_path))
    x = torch.tensor([-2.75, 0, 0.5, 3]).to(getattr(torch, source))
    assert runner.forward(x).equal(x.to(getattr(torch, target)))


def test_a_change_that_would_not_wrap_is_refused(tmp_path: Path) -> None:
    runner = WgpuRunner(converting("int32", "int8", tmp_path))
    with pytest.raises(InputError, match="int32 to int8: use --device reference"):
        runner.forward(torch.tensor([1, 2, 3, 300], dtype=torch.int32))


def converting(source: str, target: str, folder: Path) -> Path:
    maker = GraphMaker()
    x, out = maker.input(source, 4), maker.tensor(target, 4)
    none, no = maker.plain("null"), maker.plain("bool", False)
    maker.call("dim_order_ops._to_dim_order_copy.default", x, none, none, none, none, no, none, out)
    return maker.save(folder / "converted.pte", [out])
