"""Rules for operators in both runtimes of Vulkan programs."""
