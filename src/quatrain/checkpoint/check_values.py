"""Checks that the values of a checkpoint's tensors are valid for their names."""

from collections.abc import Callable

import torch

from quatrain.errors import InputError, shell_word
from quatrain.int4 import INT4_MAX, INT4_MIN
from quatrain.linear.packing import is_int4

_ELEMENTS_AT_ONCE = 1 << 20  # what a check needs beside the tensor is a few megabytes


def check_tensor_values(tensor: torch.Tensor, name: str, source: str, int4: bool) -> None:
    """Raise `InputError` if an element of `tensor` is not what `name` says it is.

    `int4`: whether integers lie in [-8, 7], and their scales may be negative, as half of those in
    GGUF's Q4_0 are; others fill their int8.
    """
    part = name.rpartition(".")[2]
    if part == "zeros":
        # The q4 kernels ignore zero points without a word.
        expected = "0: only symmetric quantization is supported"
        remedy = (
            f"Run `quatrain convert {shell_word(source)} DIR --requantize-asymmetric`, which "
            "requantizes such linears and reports the error."
        )
        _require(lambda x: x == 0, tensor, name, source, expected, remedy)
    elif part == "scales" and int4:
        _require(
            lambda x: (x != 0) & torch.isfinite(x), tensor, name, source, "a finite scale, not 0"
        )
    elif part == "scales":
        _require(
            lambda x: (x > 0) & torch.isfinite(x), tensor, name, source, "a positive finite scale"
        )
    elif tensor.is_floating_point():
        _require(torch.isfinite, tensor, name, source, "a finite value")
    elif int4 and not is_int4(tensor):
        _require(
            lambda x: (x >= INT4_MIN) & (x <= INT4_MAX),
            tensor,
            name,
            source,
            "an int4 value in [-8, 7]",
        )


def _require(
    holds: Callable[[torch.Tensor], torch.Tensor],
    tensor: torch.Tensor,
    name: str,
    source: str,
    expected: str,
    remedy: str = "Write the checkpoint again from its source.",
) -> None:
    """Refuse a tensor unless `holds` is true for all its elements."""
    rows = tensor.unsqueeze(0) if tensor.dim() == 0 else tensor
    step = max(1, _ELEMENTS_AT_ONCE * len(rows) // max(1, rows.numel()))
    wrong, first_wrong = 0, None
    for first in range(0, len(rows), step):
        bad = ~holds(rows[first : first + step])
        if not bool(bad.any()):
            continue
        if first_wrong is None:
            index = bad.nonzero()[0].tolist()
            first_wrong = [index[0] + first, *index[1:]]
        wrong += int(bad.sum())
    if first_wrong is not None:
        raise InputError(
            f"{source}: {name}{first_wrong} is {rows[tuple(first_wrong)].item():g}, expected "
            f"{expected}; {wrong} of {tensor.numel()} elements are not. {remedy}"
        )
