"""Runs a Vulkan program's own delegate graph on the CPU, operator by operator, with torch.

It is what the GPU should compute: the same constants, in the same order, each result rounded
to the type that the graph declares for it. It is how a program is proved before it meets a
phone, not how it is served.
"""

from quatrain.runtime.reference.runner import ReferenceRunner

__all__ = ["ReferenceRunner"]
