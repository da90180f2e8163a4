"""A norm and a rotation as small linears.

XNNPACK reduces by no operator that ExecuTorch's partitioner takes for these shapes, and has no turn
of neighbouring channels. Both are said as a linear: the mean of squares as a row of 1 / dim, and
a head's channels in the other order, with their signs, as a matrix of 0, 1, -1.
"""

import torch
import torch.nn.functional as F
from torch import nn

from quatrain.backbone.layers.mamba import GroupNorm
from quatrain.backbone.layers.norm import RMSNorm
from quatrain.backbone.layers.rope import Rope


class FixedLinear(nn.Module):
    """A linear whose weight [N, K] and bias [N] or None do not come from a checkpoint."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight, self.bias)


class LinearRMSNorm(nn.Module):
    """`RMSNorm` of float32 whose mean of squares plus eps is a linear's.

    `weight` [dim] is None if it has none of its own, and `factor` [1] then what it has in all
    channels, or None for 1.
    """

    weight: torch.Tensor | None
    factor: torch.Tensor | None

    def __init__(self, norm: RMSNorm) -> None:
        super().__init__()
        self.weight = norm.weight if isinstance(norm.weight, nn.Parameter) else None
        self.dim = norm.weight.shape[0]
        factor = norm.weight[:1].detach() if self.weight is None else None
        self.register_buffer("factor", None if factor is None or factor == 1 else factor)
        row = torch.full((1, self.dim), 1.0 / self.dim, device="cpu")
        self.mean = FixedLinear(row, torch.tensor([norm.eps], device="cpu"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = torch.rsqrt(self.mean(x * x))
        normed = x * (scale if self.factor is None else scale * self.factor)
        return normed if self.weight is None else normed * self.weight


class LinearGroupNorm(nn.Module):
    """`GroupNorm`: a row of `mean` has the channels of one group, and `spread` gives its result to
    each of them."""

    weight: torch.Tensor

    def __init__(self, norm: GroupNorm) -> None:
        super().__init__()
        self.weight = norm.weight
        width = len(norm.weight) // norm.groups
        groups = torch.eye(norm.groups, device="cpu").repeat_interleave(width, dim=1)
        bias = torch.full((norm.groups,), norm.norm.eps, device="cpu")
        self.mean, self.spread = (
            FixedLinear(groups / width, bias),
            FixedLinear(groups.T.contiguous()),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.spread(torch.rsqrt(self.mean(x * x))) * self.weight


class LinearRotary(nn.Module):
    """The rotation of heads [1, T, heads, head_dim] by tables [1, T, 1, head_dim] of `WideRope`.

    `turned` gives each channel the one that it is rotated with, of the sign that the sine has.
    """

    def __init__(self, head_dim: int, rotated: int, half_split: bool) -> None:
        super().__init__()
        matrix = torch.zeros(head_dim, head_dim, device="cpu")
        for plane in range(rotated // 2):
            pair = (plane, plane + rotated // 2) if half_split else (2 * plane, 2 * plane + 1)
            matrix[pair] = -1.0
            matrix[pair[::-1]] = 1.0
        self.turned = FixedLinear(matrix)

    def forward(self, heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        return heads * cos + self.turned(heads) * sin


class WideRope(nn.Module):
    """The tables of `Rope`, a column for each channel of a head, for `LinearRotary`."""

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, rope: Rope, head_dim: int) -> None:
        super().__init__()
        self.half_split, self.head_dim = rope.half_split, head_dim
        for name in ("cos", "sin"):
            self.register_buffer(name, rope.get_buffer(name), persistent=False)

    def forward(self, start: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """[1, T, 1, head_dim] each, of positions start .. start + length - 1."""
        cos, sin = self.cos.narrow(0, start, length), self.sin.narrow(0, start, length)
        return self._expanded(cos, 1.0), self._expanded(sin, 0.0)

    def _expanded(self, table: torch.Tensor, still: float) -> torch.Tensor:
        if self.half_split:
            rest = self.head_dim - table.shape[1]
            wide = F.pad(table, (0, rest), value=still) if rest else table
        else:
            wide = table.unsqueeze(-1).expand(-1, -1, 2)
        return wide.reshape(1, table.shape[0], 1, self.head_dim)
