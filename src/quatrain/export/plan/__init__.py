"""Predicts what `quantize` and `export` would write and refuse, from headers and parameters only.

`plan` is the entry point, `programs` predicts each program, and `sizes`, `*_overhead` and `memory`
count its bytes, on the tensors without data of `weightless`. `quantize.plan.growth` counts those of
the checkpoint.
"""
