"""Products, softmax and layer norms as the phone's runtime computes them in float16 buffers.

There it sums in float16, one term after the other, so that a sum of many terms loses those that are
small beside it. Sources: `linear_vec.glsl`, `matmul_vec.glsl`, `softmax_buffer.glsl` and
`native_layer_norm_buffer.glsl` of ExecuTorch 1.5, whose accumulators are of a buffer's own type;
those of a texture are float32.
"""

from collections.abc import Callable
from typing import Any

import torch

_WORKERS = 4  # of softmax_buffer.glsl, which share each sum
_NORM_WORKERS = 64  # of native_layer_norm_buffer.glsl, whose sums are joined two by two


def summed(rows: torch.Tensor, terms: torch.Tensor) -> torch.Tensor:
    """rows [..., M, K] times terms [..., K, N], in float16 from the first of K to the last."""
    total = torch.zeros(*rows.shape[:-1], terms.shape[-1], dtype=torch.float16)
    factors, terms = rows.half().movedim(-1, 0).contiguous(), terms.half().movedim(-2, 0)
    for factor, term in zip(factors, terms.contiguous(), strict=True):
        total.addcmul_(factor[..., None], term[..., None, :])
    return total


def linear(x: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x [..., K] times weights [N, K], plus bias [N]."""
    total = summed(x, weights.t())
    return total if bias is None else total + bias.half()


def addmm(bias: Any, a: torch.Tensor, b: torch.Tensor, beta: Any, alpha: Any) -> torch.Tensor:
    """beta * bias + alpha * (a @ b)."""
    return summed(a, b) * alpha + torch.as_tensor(bias).half() * beta


def softmax(x: torch.Tensor, dim: int) -> torch.Tensor:
    """Softmax along `dim`, each fourth power summed by one worker."""
    powers = (x - x.amax(dim, keepdim=True)).half().exp().movedim(dim, 0)
    sums = [_sum_of(powers[worker::_WORKERS]) for worker in range(_WORKERS)]
    return (powers / sum(sums)).movedim(0, dim)


def layer_norm(
    x: torch.Tensor, normalized_shape: Any, weight: Any, bias: Any, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Layer norm over the last dimension, mean and 1 / std besides: a row whose squares leave
    float16 becomes its bias."""
    rows, width = x.half(), x.shape[-1]
    mean = _shared_sum(rows) / width
    apart = rows - mean
    factor = (_shared_sum(apart * apart) / width + torch.tensor(eps).half()).pow(-0.5)
    normed = apart * factor
    normed = normed if weight is None else normed * weight.half()
    return normed if bias is None else normed + bias.half(), mean, factor


def _shared_sum(terms: torch.Tensor) -> torch.Tensor:
    """Over the last dimension, kept: each worker its share, then these two by two."""
    padded = torch.nn.functional.pad(terms, (0, -terms.shape[-1] % _NORM_WORKERS))
    shares = padded.unflatten(-1, (-1, _NORM_WORKERS)).movedim(-2, 0)
    total = _sum_of(shares)
    while total.shape[-1] > 1:
        half = total.shape[-1] // 2
        total = total[..., :half] + total[..., half:]
    return total


def _sum_of(terms: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(terms.shape[1:], dtype=torch.float16)
    for term in terms.contiguous():
        total += term
    return total


HALF_PRODUCTS: dict[str, Callable[..., Any]] = {
    "aten.bmm": lambda a, b: summed(a, b),
    "aten.mm": lambda a, b: summed(a, b),
    "aten.addmm": addmm,
    "aten.linear": linear,
    "aten._softmax": softmax,
    "aten.native_layer_norm": layer_norm,
}
