"""Tensors that are written as the source stores them: the source's own integers, norms, biases."""

import torch

from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.quantize.plan.plan import Source, TensorPlan
from quatrain.quantize.quantized_tensor import QuantizedTensor

_LAST_NORM = "norm.weight"  # before the output layer, which sees nothing else


def keep_stored(source: Source, tensor: TensorPlan) -> QuantizedTensor:
    """The tensor itself, after checking its values; or nothing, if the plan only checks it.

    Raises `ValueError` or `InputError` if a value is not what it must be.
    """
    stored = source.tensors[tensor.source]
    if isinstance(source, Checkpoint):
        source.check_tensor(tensor.source, stored)
    elif not torch.isfinite(stored).all():
        raise ValueError("holds a NaN or an infinite value")
    elif tensor.source == _LAST_NORM and not stored.any():
        raise ValueError("holds only zeros, as in a file that was not written to its end")
    return QuantizedTensor((stored,)[: len(tensor.specs)], None)
