"""Runs a Vulkan program on any GPU that WebGPU reaches, or on llvmpipe if there is none.

device.py opens the adapter and caches pipelines; dispatches/ makes dispatches of the kernels in
kernels/; lower.py does so for a whole graph, operator by operator (operators/, symbols.py) as
fuse.py joins them, with its state in lowering.py; buffers.py gives it memory,
sequence.py records it; plan.py holds all that for one set of input shapes; runner.py runs it,
trace.py operator by operator. selftest/ proves the kernels.
"""
