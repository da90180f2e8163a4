"""Checks the values of a checkpoint's tensors: what their names promise."""

import torch

from quatrain.errors import InputError

INT4 = (-8, 7)


def check_tensor_values(tensor: torch.Tensor, name: str, source: str, int4: bool) -> None:
    """Raise `InputError` where an element of `tensor` is not what `name` says it is.

    `int4`: whether an integer weight must lie in [-8, 7] rather than fill its int8.
    """
    part = name.rpartition(".")[2]
    if part == "zeros":
        # The q4 kernels ignore zero points without a word.
        _require(
            tensor == 0,
            tensor,
            name,
            source,
            "0: only symmetric quantization is supported "
            "(quatrain convert --requantize-asymmetric rounds it anew)",
        )
    elif part == "scales":
        _require(
            (tensor > 0) & torch.isfinite(tensor), tensor, name, source, "a positive finite scale"
        )
    elif tensor.is_floating_point():
        _require(torch.isfinite(tensor), tensor, name, source, "a finite value")
    elif int4 and not within(tensor, INT4):
        inside = (tensor >= INT4[0]) & (tensor <= INT4[1])
        _require(inside, tensor, name, source, "an int4 value in [-8, 7]")


def within(tensor: torch.Tensor, bounds: tuple[int, int]) -> bool:
    """Whether all of an integer tensor lies within `bounds`, both ends included."""
    low, high = torch.aminmax(tensor)
    return bounds[0] <= int(low) and int(high) <= bounds[1]


def _require(
    holds: torch.Tensor, tensor: torch.Tensor, name: str, source: str, expected: str
) -> None:
    if bool(holds.all()):
        return
    bad = (~holds).nonzero()
    index = bad[0].tolist()
    raise InputError(
        f"{source}: {name}{index} is {tensor[tuple(index)].item():g}, expected {expected}; "
        f"{len(bad)} of {tensor.numel()} elements are not. Write the checkpoint again from its "
        "source."
    )
