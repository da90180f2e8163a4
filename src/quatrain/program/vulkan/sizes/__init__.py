"""The sizes of what the operators of a Vulkan graph return."""
