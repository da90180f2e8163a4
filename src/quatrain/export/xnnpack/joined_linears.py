"""Linears of one input as one, whose result is cut.

Each of several would round that input to int8, and wake the threads, for itself. The rows of the
one are those of the others, so that its results are theirs bit for bit.
"""

from itertools import accumulate
from typing import Any

import torch
from torch import nn

# Of an attention and of a feed-forward: what is lowered as one.
QUERIES_KEYS_VALUES, GATE_AND_UP = ("wq", "wk", "wv"), ("w1", "w3")


class JoinedLinear(nn.ModuleList):
    """Linears that are lowered as one, their rows concatenated. Its name in its parent is their
    names joined by `+`, as in `ConstantSource`."""


def join(module: nn.Module, names: tuple[str, ...]) -> str:
    """Join the linears `names` of `module` into one, in place. Returns its name."""
    linears = [getattr(module, name) for name in names]
    joined = "+".join(names)
    for name in names:
        setattr(module, name, None)
    module.add_module(joined, JoinedLinear(linears))
    return joined


def cut(x: torch.Tensor, dim: int, sizes: tuple[int, ...]) -> list[torch.Tensor]:
    """Split `x` into parts of those sizes. The graph has the largest number of tokens: with fewer,
    XNNPACK splits what there is (`static-slice.c`, in ExecuTorch 1.0 and since)."""
    return [x.narrow(dim, end - n, n) for n, end in zip(sizes, accumulate(sizes), strict=True)]


def are_alike(linears: list[Any]) -> bool:
    """Whether the linears can be joined into one."""
    kinds = [
        (type(one), getattr(one, "groupsize", None), getattr(one, "bias", None) is None)
        for one in linears
    ]
    return len(set(kinds)) == 1
