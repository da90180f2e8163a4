"""GPU profiles and known defects of the Vulkan runtime, and what they mean for a program.

The figures and the defects are data (`devices.toml`, `hazards.toml`), each with its source.
"""

from quatrain.targets.catalogue import Defect, Device, find_device, load_defects, load_devices
from quatrain.targets.choice import Planned, TargetChoice, choose_for_target, require_target
from quatrain.targets.doctor import Finding, examine

__all__ = [
    "Defect",
    "Device",
    "Finding",
    "Planned",
    "TargetChoice",
    "choose_for_target",
    "examine",
    "find_device",
    "load_defects",
    "load_devices",
    "require_target",
]
