"""What runs the programs of each backend here."""

import pytest

from quatrain.runtime.reference import ReferenceRunner
from quatrain.runtime.wgpu.adapters import list_adapters
from quatrain.runtime.wgpu.runner import WgpuRunner

needs_gpu = pytest.mark.skipif(
    not list_adapters(),
    reason="no Vulkan adapter: apt-get install mesa-vulkan-drivers gives a software one",
)

DEVICES_OF = {
    "vulkan": ("reference", "gpu") if list_adapters() else ("reference",),
    "xnnpack": ("executorch",),
}
RUNNERS = [ReferenceRunner, pytest.param(WgpuRunner, marks=needs_gpu)]  # of Vulkan programs
