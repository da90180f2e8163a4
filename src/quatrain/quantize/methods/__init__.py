"""The ways from a source's tensor to the tensors that are written, each in a file of its own."""

from collections.abc import Callable, Mapping
from typing import Any

from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.errors import InputError
from quatrain.quantize.methods.int4_blocks import keep_int4_blocks
from quatrain.quantize.methods.int8_table import round_int8_table
from quatrain.quantize.methods.round_to_nearest import round_to_nearest
from quatrain.quantize.methods.stored import keep_stored
from quatrain.quantize.plan.plan import MethodName, Source, TensorPlan
from quatrain.quantize.quantized_tensor import QuantizedTensor

# (the source, the plan of one of its tensors) -> the quantized tensor. Called once for each tensor,
# in the order of the plan. The source may be reopened between two calls, so a method must not keep
# any of its tensors from one call to the next.
Method = Callable[[Any, TensorPlan], QuantizedTensor]

METHODS: dict[MethodName, Method] = {
    "rtn": round_to_nearest,
    "int4_blocks": keep_int4_blocks,
    "int8_table": round_int8_table,
    "stored": keep_stored,
}


def quantize_tensor(
    source: Source, tensor: TensorPlan, methods: Mapping[MethodName, Method] = METHODS
) -> QuantizedTensor:
    """The tensor, quantized by `tensor.method` of `methods`. Raises `InputError` if its values are
    damaged."""
    try:
        return methods[tensor.method](source, tensor)
    except ValueError as error:
        remedy = (
            "the file is damaged"
            if isinstance(source, Checkpoint)
            else "the model is damaged, download it again"
        )
        raise InputError(f"{source.source}: {tensor.source} {error}; {remedy}") from error
