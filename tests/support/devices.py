"""What runs the programs of each backend here."""

from quatrain.runtime.wgpu.adapters import list_adapters

DEVICES_OF = {
    "vulkan": ("reference", "gpu") if list_adapters() else ("reference",),
    "xnnpack": ("executorch",),
}
