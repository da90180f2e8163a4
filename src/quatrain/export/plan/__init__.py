"""What `quantize` and `export` would write, and refuse, from headers and parameters alone.

`plan` asks, `programs` forecasts each program, `sizes`, `around_*` and `memory` count its bytes,
on the tensors without weights of `hollow`. `quantize.plan.growth` counts those of the checkpoint.
"""
