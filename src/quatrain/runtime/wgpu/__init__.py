"""Runs a Vulkan program on any GPU that WebGPU reaches, or on llvmpipe where there is none.

device.py opens the adapter and caches pipelines; dispatch.py says what a dispatch is;
linear.py, attention.py and pointwise.py turn one operator into dispatches of the kernels in
kernels/; lower.py does so for a whole graph; sequence.py gives it memory and records it;
runner.py runs it. selftest/ proves the kernels.
"""

from quatrain.runtime.wgpu.runner import Timing, WgpuRunner

__all__ = ["Timing", "WgpuRunner"]
