"""Linears with something beside or before them: LoRA adaptors, and SpinQuant's rotation."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
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
        self.rotation = Hadamard(in_features)
        self.base = base
        self.register_load_state_dict_pre_hook(_name_base)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(self.rotation(x))


class Hadamard(nn.Module):
    """The orthonormal Walsh-Hadamard transform, in natural order, of the last dimension.

    x [..., n], n a power of two; raises ValueError for another. Computed as two small matrix
    products, of a and b with a * b = n: n * (a + b) multiplications that every backend has, where
    the whole matrix would take n * n. Equal to ExecuTorch's `llama::fast_hadamard_transform`.
    """

    first: torch.Tensor
    second: torch.Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        if size < 1 or size & (size - 1):
            raise ValueError(f"the Hadamard transform of size {size} is not a power of two's")
        a = 1 << (size.bit_length() - 1) // 2
        self.register_buffer("first", _hadamard_matrix(a), persistent=False)
        self.register_buffer("second", _hadamard_matrix(size // a), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # The matrix of size a * b is the Kronecker product of the two, which are symmetric:
        # X [a, b] becomes first @ X @ second.
        square = x.unflatten(-1, (self.first.shape[0], self.second.shape[0]))
        columns = F.linear(square, self.second).transpose(-1, -2)  # [..., b, a]
        return F.linear(columns, self.first).transpose(-1, -2).flatten(-2)


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
