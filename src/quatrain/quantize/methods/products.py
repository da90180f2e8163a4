"""Products of large matrices, in pieces whose size does not depend on the number of threads."""

from functools import partial
from math import ceil

import torch
from torch import nn

from quatrain.quantize.threads import in_parallel, torch_threads

# Multiplications in a piece: they take milliseconds, beside which handing it to a thread costs
# little.
_PIECE = 2**27
_HALVED = 1024  # columns, from which on a matrix is factored by halves


def compute_linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, made: torch.Tensor
) -> None:
    """Write `x` [rows, K] times `weight` [N, K] transposed, plus `bias` [N], to `made`
    [rows, N]."""

    def of_rows(rows: slice) -> None:
        if bias is None:
            torch.mm(x[rows], weight.T, out=made[rows])
        else:
            torch.addmm(bias, x[rows], weight.T, out=made[rows])

    in_parallel(of_rows, len(x), _rows_at_once(len(x), weight.T))


def compute_in_pieces(block: nn.Module) -> None:
    """Let `compute_linear` compute the linears of `block`."""
    for linear in block.modules():
        if isinstance(linear, nn.Linear):
            # Not with `linear`, which would refer to itself, and keep its memory when it is left.
            linear.forward = partial(_forward, linear.weight, linear.bias)


def _forward(weight: torch.Tensor, bias: torch.Tensor | None, input: torch.Tensor) -> torch.Tensor:
    made = input.new_empty(*input.shape[:-1], len(weight))
    compute_linear(input.flatten(0, -2), weight, bias, made.flatten(0, -2))
    return made


def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """`left` [M, K] times `right` [K, N]."""
    made = left.new_empty(len(left), right.shape[1])
    compute_linear(left, right.T, None, made)
    return made


def add_product(
    total: torch.Tensor,
    left: torch.Tensor,
    right: torch.Tensor,
    factor: float = 1.0,
    symmetric: bool = False,
) -> None:
    """Add `factor` times `left` [M, K] times `right` [K, N] to `total` [M, N], in place. Of a
    `symmetric` result, most of what is above the diagonal is left out."""

    def add_rows(rows: slice) -> None:
        columns = slice(rows.stop if symmetric else None)
        total[rows, columns].addmm_(left[rows], right[:, columns], alpha=factor)

    in_parallel(add_rows, len(total), _rows_at_once(len(total), right))


def cholesky(matrix: torch.Tensor) -> torch.Tensor:
    """The lower Cholesky factor of `matrix` [K, K], in its place; only its lower part is read."""
    size = len(matrix)
    if size < _HALVED:
        with torch_threads(1):
            return matrix.copy_(torch.linalg.cholesky(matrix))
    first, last = slice(size // 2), slice(size // 2, None)
    corner, below, rest = cholesky(matrix[first, first]), matrix[last, first], matrix[last, last]

    def solve_rows(rows: slice) -> None:
        solved = torch.linalg.solve_triangular(corner.T, below[rows], upper=True, left=False)
        below[rows] = solved

    in_parallel(solve_rows, len(below), _rows_at_once(len(below), corner))
    add_product(rest, below, below.T, factor=-1, symmetric=True)
    cholesky(rest)
    matrix[first, last] = 0
    return matrix


def solve(wanted: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """`wanted` [N, K] times (L L^T)^-1 for the lower Cholesky `factor` L [K, K], in L's type; the
    result is of the type of `wanted`."""

    def of_rows(rows: slice) -> torch.Tensor:
        return torch.cholesky_solve(wanted[rows].to(factor.dtype).T, factor).T.to(wanted.dtype)

    return torch.cat(in_parallel(of_rows, len(wanted), _rows_at_once(len(wanted), factor)))


def _rows_at_once(rows: int, right: torch.Tensor) -> int:
    """The equal pieces of `rows` rows in which a matrix [rows, K] is multiplied by `right`
    [K, N]."""
    least = max(128, right.shape[1] // 32, _PIECE // right.numel())
    return max(1, ceil(rows / max(1, rows // least)))
