"""A part of a method that a backend runs, as the program stores it."""

from dataclasses import dataclass, field

from quatrain.program.file.flatbuffer import Record
from quatrain.program.vulkan.graph import VulkanGraph

VULKAN_BACKEND = "VulkanBackend"


@dataclass
class Delegate:
    """A part of a method that a backend runs; `blob` is a view of its bytes in the file."""

    method: str
    backend: str
    blob: memoryview = field(repr=False)
    compile_specs: dict[str, bytes]
    graph: VulkanGraph | None = None
    record: Record = field(repr=False, default_factory=Record)
