"""The graph of a Vulkan delegate: its operators, values and constants."""
