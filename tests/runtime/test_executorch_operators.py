"""Operators as ExecuTorch lowers them; all of its suite is check_executorch_operators.py."""

from pathlib import Path
from typing import Any

import pytest
from executorch.backends.vulkan.op_registry import vulkan_supported_ops
from tests.support.comparisons.executorch_operators import generate, outcome

from quatrain.program import Operator
from quatrain.runtime.reference import ReferenceRunner
from quatrain.runtime.reference.find_kernel import ALL_KERNELS, aten_kernel
from quatrain.runtime.wgpu.adapters import list_adapters
from quatrain.runtime.wgpu.runner import WgpuRunner

# Its method returns the second of what its delegate does, then the first.
OTHER_ORDER = ("split_with_sizes_copy", "offset_chunk1_first")


@pytest.mark.parametrize(
    ("operator", "case"), [("floor_divide", "2d"), ("q8ta_relu", "basic"), OTHER_ORDER]
)
def test_results_are_those_of_the_suite(operator: str, case: str, tmp_path: Path) -> None:
    on_gpu = operator != "q8ta_relu"
    for entry in generate(operator, case, tmp_path):
        assert outcome(tmp_path, entry, ReferenceRunner) == "right"
        if list_adapters():
            got = outcome(tmp_path, entry, WgpuRunner)
            assert got == "right" if on_gpu else "has no kernel for et_vk.q8ta_relu" in got


def test_the_reference_has_every_aten_operator_that_the_partitioner_takes() -> None:
    """`copy` never stands in a graph's middle: the partitioner takes it where it does nothing."""
    lacking = []
    operators: list[Any] = list(vulkan_supported_ops)  # or strings, of no ATen operator
    for operator in operators:
        name = getattr(operator, "__name__", str(operator))
        if name.startswith("aten."):
            arguments = len(operator._schema.arguments)
            own = Operator(name, ()).kind in ALL_KERNELS
            if not own and aten_kernel(name, arguments) is None:
                lacking.append(name)
    assert lacking == []


def test_torch_is_asked_for_no_operator_that_is_random_or_writes() -> None:
    assert aten_kernel("aten.made_up.default", 1) is None
    assert aten_kernel("aten.relu_.default", 1) is None
    assert aten_kernel("aten.rand_like.default", 6) is None
    assert aten_kernel("aten.abs.default", 2) is None
