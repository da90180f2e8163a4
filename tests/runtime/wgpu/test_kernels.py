"""Each WGSL kernel against float64, over the shapes that break kernels."""

import pytest
from tests.support.paths import DOCS

from quatrain.runtime.wgpu.adapters import list_adapters
from quatrain.runtime.wgpu.device import Gpu
from quatrain.runtime.wgpu.selftest import TOLERANCE, Case, all_cases, run_case


@pytest.fixture(scope="module")
def gpu() -> Gpu:
    if not list_adapters():
        pytest.skip("no Vulkan adapter: apt-get install mesa-vulkan-drivers gives a software one")
    return Gpu()


@pytest.mark.parametrize("case", [c for t in TOLERANCE for c in all_cases(t)], ids=str)
def test_kernel_equals_float64(gpu: Gpu, case: Case) -> None:
    if case.dtype == "f16" and not gpu.info.fp16:
        pytest.skip("the adapter has no shader-f16")
    assert run_case(gpu, case) < TOLERANCE[case.dtype]


def test_the_page_counts_them() -> None:
    cases = [case for dtype in TOLERANCE for case in all_cases(dtype)]
    page = (DOCS / "gpu.md").read_text(encoding="utf-8")
    assert f"It has {len(cases)} cases now" in page
    assert f"The {len({(case.kernel, case.dtype) for case in cases})} kernels of" in page
