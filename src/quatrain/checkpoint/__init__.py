"""Reads model files as named tensors: floating-point models of every format, and int4 checkpoints.

`open.py` is the door: it tells what a file or folder is, and opens it.
"""
