"""Floating-point models to int4 checkpoints, and other programs' checkpoints to this layout.

`pipeline` is the way from one to the other, `methods` the ways from weights to integers. Imports
nothing, so that arguments are checked (`arguments`) before torch is there.
"""
