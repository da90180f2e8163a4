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
    """Linears that are lowered as one, the rows of each after another's. Its name in its parent is
    theirs with `+` between them, as `ConstantSource` has it."""


class Projecting(nn.Module):
    """Some `parts` of a module, and its linears `joined` as one."""

    def __init__(self, module: Any, joined: tuple[str, ...], parts: tuple[str, ...]) -> None:
        super().__init__()
        for name in parts:
            setattr(self, name, getattr(module, name))
        linears = [getattr(module, name) for name in joined]
        self.joined, self.rows = "+".join(joined), tuple(len(each.weight) for each in linears)
        self.add_module(self.joined, JoinedLinear(linears))

    def project(self, x: torch.Tensor) -> torch.Tensor:
        """x [1, T, K] to [1, T, the rows of all]."""
        return getattr(self, self.joined)(x)


def cut(x: torch.Tensor, dim: int, sizes: tuple[int, ...]) -> list[torch.Tensor]:
    """Parts of `x` of those sizes. The graph has the most tokens in it: of fewer, XNNPACK cuts
    what there is (`static-slice.c`, in ExecuTorch 1.0 and since)."""
    return [x.narrow(dim, end - n, n) for n, end in zip(sizes, accumulate(sizes), strict=True)]


def are_alike(linears: list[Any]) -> bool:
    """Whether one linear can have the rows of all."""
    kinds = [
        (type(one), getattr(one, "groupsize", None), getattr(one, "bias", None) is None)
        for one in linears
    ]
    return len(set(kinds)) == 1
