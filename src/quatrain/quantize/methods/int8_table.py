"""Rounds an int8 embedding or output layer of a checkpoint to int4 in groups."""

import torch

from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.quantize.methods.paired_layer import dequantized
from quatrain.quantize.methods.round_to_nearest import quantize_rows
from quatrain.quantize.plan.plan import TensorPlan
from quatrain.quantize.quantized_tensor import QuantizedTensor


def round_int8_table(source: Checkpoint, tensor: TensorPlan) -> QuantizedTensor:
    """`quantize_rows` of what the integers times their scales are.

    Raises `ValueError` or `InputError` if a scale is not finite.
    """
    table = tensor.source.removesuffix(".weight")
    values, scales = source.tensors[tensor.source], source.tensors[f"{table}.scales"].float()
    source.check_tensor(f"{table}.scales", scales)

    def rows_of(rows: slice) -> torch.Tensor:
        return dequantized(values[rows], scales[rows])

    return quantize_rows(rows_of, tensor.shape, tensor.group_size)
