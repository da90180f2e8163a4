"""Linears with LoRA adaptors, or with SpinQuant's rotation before them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class AdaptedLinear(nn.Module):
    """`y = base(x) + B(A(x))`: a quantized linear and its LoRA adaptor (Hu et al., 2021).

    A is [rank, in_features], B is [out_features, rank] with the adaptor's scale in it. A state
    dict names the base's tensors as if it stood alone (`F.weight`, `F.scales`) and the adaptor's
    `F.adaptor.A.weight` and `F.adaptor.B.weight`, as Meta's QLoRA releases do.
    """

    def __init__(self, base: nn.Module, in_features: int, out_features: int, rank: int) -> None:
        super().__init__()
        self.base = base
        self.adaptor = nn.ModuleDict(
            {
                "A": nn.Linear(in_features, rank, bias=False),
                "B": nn.Linear(rank, out_features, bias=False),
            }
        )
        self.register_load_state_dict_pre_hook(_name_base)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.adaptor["B"](self.adaptor["A"](x))


class RotatedLinear(nn.Module):
    """`y = base(hadamard(x))`: SpinQuant's online rotation R4 (Liu et al., 2024) and a linear.

    A state dict names the base's tensors as if it stood alone.
    """

    def __init__(self, base: nn.Module, in_features: int) -> None:
        super().__init__()
        self.rotation: nn.Module = Hadamard(in_features)
        self.base = base
        self.register_load_state_dict_pre_hook(_name_base)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(self.rotation(x))


class Hadamard(nn.Module):
    """The orthonormal Walsh-Hadamard transform, in natural order, of the last dimension.

    x [..., n], n a power of two; raises ValueError for another. Computed as two small linears,
    of a and b features with a * b = n: n * (a + b) multiplications that every backend has, where
    the whole matrix would take n * n. Equal to ExecuTorch's `llama::fast_hadamard_transform`.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        if size < 1 or size & (size - 1):
            raise ValueError(f"the Hadamard transform of size {size} is not a power of two's")
        a = 1 << (size.bit_length() - 1) // 2
        self.first = _fixed_linear(_hadamard_matrix(a))
        self.second = _fixed_linear(_hadamard_matrix(size // a))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # The matrix of size a * b is the Kronecker product of the two, which are symmetric:
        # X [a, b] becomes first @ X @ second.
        a, b = self.first.in_features, self.second.in_features
        rows = self.second(x.reshape(-1, b))
        columns = rows.view(-1, a, b).transpose(1, 2).reshape(-1, a)
        rows = self.first(columns).view(-1, b, a).transpose(1, 2)
        return rows.reshape(x.shape)


class FastHadamard(nn.Module):
    """`Hadamard` as `llama::fast_hadamard_transform`, which ExecuTorch's CPU runtime has, and
    computes faster than the two linears.

    Whoever calls it registers the operator: `executorch.extension.llm.custom_ops.custom_ops`.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.llama.fast_hadamard_transform.default(x)


def to_fast_hadamard(module: nn.Module) -> None:
    """Replace, in place, each rotation below `module` by the one operator that computes it."""
    for rotated in module.modules():
        if isinstance(rotated, RotatedLinear):
            rotated.rotation = FastHadamard()


def _fixed_linear(matrix: torch.Tensor) -> nn.Linear:
    """A linear whose weight is `matrix` [N, N], and no checkpoint's."""
    linear = nn.Linear(*matrix.shape, bias=False, device="meta")
    del linear.weight
    linear.register_buffer("weight", matrix, persistent=False)
    return linear


def _hadamard_matrix(size: int) -> torch.Tensor:
    """Sylvester's matrix [size, size] over the square root of its size."""
    matrix = torch.ones((1, 1), device="cpu")
    block = torch.tensor([[1.0, 1.0], [1.0, -1.0]], device="cpu")
    while matrix.shape[0] < size:
        matrix = torch.kron(block, matrix)
    return matrix / size**0.5


def _name_base(
    module: nn.Module, state: dict[str, Any], prefix: str, *_: Mapping[str, Any]
) -> None:
    """Before loading: `F.weight` becomes `F.base.weight`."""
    for name in list(state):
        part = name.removeprefix(prefix)
        if name.startswith(prefix) and "." not in part:
            state[f"{prefix}base.{part}"] = state.pop(name)
