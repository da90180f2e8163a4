"""GPU profiles and known defects of the Vulkan runtime, and what they mean for a program.

The figures and the defects are data (`devices.toml`, `hazards.toml`), each with its source.
"""

from quatrain.devices.catalogue import Device, Hazard, find_device, load_devices, load_hazards
from quatrain.devices.doctor import Finding, examine
from quatrain.devices.target import Planned, TargetChoice, choose_for_target, require_target

__all__ = [
    "Device",
    "Finding",
    "Hazard",
    "Planned",
    "TargetChoice",
    "choose_for_target",
    "examine",
    "find_device",
    "load_devices",
    "load_hazards",
    "require_target",
]
