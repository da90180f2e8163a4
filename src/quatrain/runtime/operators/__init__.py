"""What both runtimes of Vulkan programs hold operators to."""
