"""Operators of torch and torchao that the eager linears call, registered by private modules.

- `torch.ops.torchao.*_affine`, registered by `torchao.quantization.quant_primitives`. torchao's
  public helpers leave `set_grad_enabled` nodes in a trace, which cost minutes (`linear.affine`).
  Without these operators no 8da4w linear runs, nor is traced to what the backends know.
- `torch.ops.quantized_decomposed`, registered by `torch.ao.quantization.fx._decomposed`. XNNPACK
  finds an int8 weight by one of them, which has no public name. Without it no int8 output layer
  runs.
- `OpOverload._schema`, to see that they still take the arguments that we give.
"""

from functools import cache
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed

from quatrain.executorch_wheel import changed
from quatrain.quiet import quiet

# Of torchao's operators, as we call them.
_ARGUMENTS = {
    "choose_qparams_affine": (
        "input mapping_type block_size target_dtype quant_min quant_max eps scale_dtype "
        "zero_point_dtype keepdim"
    ),
    "quantize_affine": "input block_size scale zero_point output_dtype quant_min quant_max",
    "dequantize_affine": (
        "input block_size scale zero_point input_dtype quant_min quant_max output_dtype"
    ),
}

quantized_decomposed: Any = torch.ops.quantized_decomposed


@cache
def torchao_operators() -> Any:
    """torchao's operators, registered on first use: importing it takes seconds.

    Raises `QuatrainError` if one takes other arguments than it did.
    """
    with quiet():
        import torchao.quantization.quant_primitives  # noqa: F401
    for name, expected in _ARGUMENTS.items():
        check_arguments("torchao", getattr(torch.ops.torchao, name).default, expected)
    return torch.ops.torchao


def check_arguments(package: str, operator: Any, expected: str) -> None:
    """Raise `QuatrainError` unless the arguments of `operator` have the names in `expected`."""
    found = " ".join(argument.name for argument in operator._schema.arguments)
    if found != expected:
        raise changed(package, f"the arguments of {operator}", f"({found})", f"({expected})")
