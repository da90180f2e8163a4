"""How each operator of a Vulkan graph becomes dispatches."""
