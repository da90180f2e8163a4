"""The kernels of ordinary operators.

A kernel's parameters are the arguments that it takes, by their names in
`program.operator_schemas.ARGUMENTS`; any other has to be at its default. It takes tensors, and
Python numbers where the graph has fixed values or symbolic integers. It computes floating point in
float32: the runner rounds the result to the type that the graph declares for the output.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from quatrain.runtime.calls.order import sliced
from quatrain.runtime.calls.token_ids import check_token_ids

Kernel = Callable[..., Any]


def embedding(weights: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """weights [V, D], indices [...] -> [..., D]."""
    check_token_ids(indices, weights.shape[0])
    return F.embedding(indices.long(), weights)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x [..., D] over its root mean square, times weight [D]."""
    x = x.float()
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight.float()


def slice_copy(
    x: torch.Tensor, dim: int, start: int | None, end: int | None, step: int
) -> torch.Tensor:
    """x[start:end:step] along `dim`, with Python's rules for what lies outside: `sliced`."""
    begin, stop = sliced(start, end, x.shape[dim])
    if step == 1:
        return x.narrow(dim, begin, max(0, stop - begin))
    return x.index_select(dim, torch.arange(begin, stop, step))


def squeeze(x: torch.Tensor, dims: Any) -> torch.Tensor:
    """x without the dimensions `dims` where their size is one."""
    return x.squeeze(dims if isinstance(dims, int) else tuple(dims))


def reduce_mean(x: torch.Tensor, dims: Any, keepdim: bool) -> torch.Tensor:
    """The mean over `dims`."""
    return x.float().mean(tuple(dims), keepdim=keepdim)


def reduce_sum(x: torch.Tensor, dims: Any, keepdim: bool) -> torch.Tensor:
    """The sum over `dims`."""
    return x.float().sum(tuple(dims), keepdim=keepdim)


def add(a: Any, b: Any, alpha: Any) -> Any:
    """a + alpha * b."""
    return wide(a) + wide(b) if alpha == 1 else wide(a) + alpha * wide(b)


def sub(a: Any, b: Any, alpha: Any) -> Any:
    """a - alpha * b."""
    return wide(a) - wide(b) if alpha == 1 else wide(a) - alpha * wide(b)


def divide(a: Any, b: Any, rounding_mode: str | None = None) -> Any:
    """a / b, or the integer below it ("floor") or on the side of zero ("trunc")."""
    a, b = wide(a), wide(b)
    return a / b if rounding_mode is None else torch.div(a, b, rounding_mode=rounding_mode)


def addmm(bias: Any, a: torch.Tensor, b: torch.Tensor, beta: Any, alpha: Any) -> torch.Tensor:
    """beta * bias + alpha * (a @ b)."""
    product = wide(a) @ wide(b)
    return beta * wide(bias) + (product if alpha == 1 else alpha * product)


def split_with_sizes(x: torch.Tensor, split_sizes: Any, dim: int) -> tuple[torch.Tensor, ...]:
    """x cut along `dim` into pieces of `split_sizes`."""
    return torch.split(x, list(split_sizes), dim)


def softmax(x: torch.Tensor, dim: int) -> torch.Tensor:
    """Softmax along `dim`."""
    return torch.softmax(x.float(), dim)


def layer_norm(x: torch.Tensor, normalized_shape: Any, weight: Any, bias: Any, eps: float) -> Any:
    """Layer norm over the last dimensions `normalized_shape`; mean and 1/std besides."""
    return torch.native_layer_norm(x.float(), list(normalized_shape), wide(weight), wide(bias), eps)


def conv_with_clamp(
    x: Any, weights: Any, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: int, output_min: float | None, output_max: float | None,
) -> torch.Tensor:  # fmt: skip
    """A convolution, or a transposed one, then clamped."""
    y = torch.convolution(
        wide(x), wide(weights), wide(bias), list(stride), list(padding), list(dilation),
        transposed, list(output_padding), groups,
    )  # fmt: skip
    low, high = (None if end is None else _in_float32(end) for end in (output_min, output_max))
    return y if low is None and high is None else y.clamp(low, high)


def _in_float32(number: float) -> float:
    """The nearest that float32 has: exporters write the largest float64 for "no bound"."""
    most = torch.finfo(torch.float32).max
    return min(max(number, -most), most)


def grid_priors(x: torch.Tensor, stride: int, offset: float) -> torch.Tensor:
    """The places (column, row) of x [..., H, W] in an image, row by row: [H * W, 2]."""
    rows, columns = ((torch.arange(size) + offset) * stride for size in x.shape[-2:])
    return torch.cartesian_prod(rows, columns).flip(1)


def wide(value: Any) -> Any:
    """A floating-point tensor as float32; anything else unchanged."""
    floating = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.float() if floating else value


def _unary(function: Callable[[torch.Tensor], torch.Tensor]) -> Kernel:
    return lambda x: function(wide(x))


KERNELS: dict[str, Kernel] = {
    "et_vk.prepack": lambda x: x,
    "sym_size": lambda x, dim: x.shape[dim],
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b,
    "et_vk.select_as_symint": lambda x, dim, index: int(x.select(dim, index)),
    "et_vk.rms_norm": rms_norm,
    "et_vk.conv_with_clamp": conv_with_clamp,
    "et_vk.grid_priors": grid_priors,
    "aten.embedding": embedding,
    "aten.index_select": lambda x, dim, index: x.index_select(dim, index.long()),
    "aten.slice_copy": slice_copy,
    "aten.select_copy": lambda x, dim, index: x.select(dim, index),
    "aten.view_copy": lambda x, size: x.reshape(size),
    "aten.expand_copy": lambda x, size: x.expand(size),
    "aten.repeat": lambda x, repeats: x.repeat(repeats),
    "aten.permute_copy": lambda x, dims: x.permute(dims),
    "aten.permute": lambda x, dims: x.permute(dims),
    "aten.transpose_copy": lambda x, dim0, dim1: x.transpose(dim0, dim1),
    "aten.t_copy": lambda x: x.t(),
    "aten.unsqueeze_copy": lambda x, dim: x.unsqueeze(dim),
    "aten.squeeze_copy": squeeze,
    "aten.clone": lambda x: x,
    "aten._to_copy": lambda x: x,
    "dim_order_ops._to_dim_order_copy": lambda x: x,
    "dim_order_ops._clone_dim_order": lambda x: x,
    "aten.cat": lambda tensors, dim: torch.cat(tensors, dim),
    "aten.split_with_sizes_copy": split_with_sizes,
    "aten.split_copy": lambda x, split_size, dim: torch.split(x, split_size, dim),
    "aten.full": lambda size, fill_value: torch.full(list(size), fill_value),
    "aten.full_like": lambda x, fill_value: torch.full(x.shape, fill_value),
    "aten.ge": lambda a, b: wide(a) >= wide(b),
    "aten.where": lambda condition, a, b: torch.where(condition.bool(), wide(a), wide(b)),
    "aten.add": add,
    "aten.sub": sub,
    "aten.mul": lambda a, b: wide(a) * wide(b),
    "aten.div": divide,
    "aten.pow": lambda x, exponent: wide(x).pow(exponent),
    "aten.neg": _unary(torch.neg),
    "aten.rsqrt": _unary(torch.rsqrt),
    "aten.sqrt": _unary(torch.sqrt),
    "aten.exp": _unary(torch.exp),
    "aten.sin": _unary(torch.sin),
    "aten.cos": _unary(torch.cos),
    "aten.tanh": _unary(torch.tanh),
    "aten.relu": _unary(torch.relu),
    "aten.silu": _unary(F.silu),
    "aten.gelu": lambda x, approximate: F.gelu(wide(x), approximate=approximate),
    "aten.sigmoid": _unary(torch.sigmoid),
    "aten.mean": reduce_mean,
    "aten.sum": reduce_sum,
    "aten.amax": lambda x, dims, keepdim: x.amax(tuple(dims), keepdim=keepdim),
    "aten._softmax": softmax,
    "aten.mm": lambda a, b: wide(a) @ wide(b),
    "aten.bmm": lambda a, b: wide(a) @ wide(b),
    "aten.addmm": addmm,
    "aten.linear": lambda x, weights, bias: F.linear(wide(x), wide(weights), wide(bias)),
    "aten.native_layer_norm": layer_norm,
}
