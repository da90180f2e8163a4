"""Make a module ready for what some pre-quantized checkpoints have beside int4 linears.

For modules that `quatrain.transform.pre_quantization` has been through; each function changes the
module in place and returns it.
"""

from collections.abc import Mapping

import torch
from torch import nn

from quatrain.errors import InputError
from quatrain.linear.adapted import AdaptedLinear, RotatedLinear
from quatrain.linear.int4 import Int4Linear


def transform_linear_for_lora_after_quantization(
    module: nn.Module, checkpoint: Mapping[str, torch.Tensor]
) -> nn.Module:
    """Put an `AdaptedLinear` around each int4 linear F that has an adaptor in `checkpoint`.

    Expected: `F.adaptor.A.weight` [rank, K] and `F.adaptor.B.weight` [N, rank], the adaptor's scale
    in B. ExecuTorch's `source_transformation/lora.py` has a function of this name. Raises
    `InputError` if a shape does not fit.
    """
    for name, linear in list(module.named_modules()):
        a, b = (checkpoint.get(f"{name}.adaptor.{part}.weight") for part in "AB")
        if not isinstance(linear, Int4Linear) or a is None or b is None:
            continue
        rank = a.shape[0]
        shapes = ((rank, linear.in_features), (linear.out_features, rank))
        if (tuple(a.shape), tuple(b.shape)) != shapes:
            raise InputError(
                f"{name}.adaptor: A is {list(a.shape)} and B is {list(b.shape)}, expected "
                f"[rank, {linear.in_features}] and [{linear.out_features}, rank]"
            )
        with torch.device(linear.weight.device):
            adapted = AdaptedLinear(linear, linear.in_features, linear.out_features, rank)
        _replace(module, name, adapted)
    return module


def transform_down_projection_for_spinquant(module: nn.Module) -> nn.Module:
    """Put SpinQuant's online Hadamard rotation before each linear called `feed_forward.w2`.

    Raises `InputError` if its input features are not a power of two.
    """
    for name, linear in list(module.named_modules()):
        if isinstance(linear, Int4Linear | nn.Linear) and name.endswith("feed_forward.w2"):
            try:
                _replace(module, name, RotatedLinear(linear, linear.in_features))
            except ValueError as error:
                raise InputError(f"{name}: {error}") from error
    return module


def _replace(module: nn.Module, name: str, replacement: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(module.get_submodule(parent), attribute, replacement)
