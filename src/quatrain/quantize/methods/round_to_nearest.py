"""Round to nearest: each group by itself, with the scale that leaves the least squared error."""

import torch

from quatrain.checkpoint.files.lazy_tensors import RowsOf
from quatrain.errors import InputError
from quatrain.int4 import INT4_MAX, INT4_MIN
from quatrain.quantize.plan.plan import Source, TensorPlan
from quatrain.quantize.quantized_tensor import QuantizedTensor, RoundingError

# What a group's largest magnitude may become. Whole numbers from 1, so that a group that is on a
# grid of 4-bit integers already finds that grid again, the coarsest first; beyond 7 the largest
# positive weight is cut off for the sake of the others.
_LARGEST = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 6.5, 7.0, 7.5, 8.0, 8.5, 9.0)
_NOTICEABLE = 1 + 1e-6  # a gain beyond float32's own rounding

_ELEMENTS_AT_ONCE = 1 << 18  # of float32: what fits a core's cache
_ELEMENTS_READ = 1 << 20  # of float32: what is held of a weight that is made when it is read
_SMALLEST_SCALE = torch.finfo(torch.float32).tiny  # of the normal numbers


def round_to_nearest(source: Source, tensor: TensorPlan) -> QuantizedTensor:
    """The tensor in int4 groups, or in int8 by row where the plan has no group size.

    Raises `ValueError` if a weight is not finite.
    """
    rows_of = source.tensors.rows_of(tensor.source)
    return quantize_rows(rows_of, tensor.shape, tensor.group_size, tensor.signed_scales)


def quantize_groups(
    weight: torch.Tensor, group_size: int, signed_scales: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Round each group of `group_size` adjacent columns of a row to symmetric int4.

    `weight` is floating [..., K]. Returns int8 [..., K] in [-8, 7] and float32 scales [..., K /
    group_size]; integers times scale approximates the weight. The scales are bfloat16 values, as
    XNNPACK's kernels store them, so that all backends compute with the same ones. They are
    positive, except with `signed_scales`: negative if a group's largest weight is positive, so that
    -8 represents the largest. Of a dozen scales per group, each refined by least squares, it uses
    the one with the least squared error: never worse than largest magnitude / 7.5, in bfloat16.
    Deterministic. Raises `InputError` if K is not a multiple of `group_size`, and `ValueError` if a
    weight is not finite.
    """
    *rows, columns = weight.shape
    if columns % group_size:
        raise InputError(
            f"has {columns} input features, not a multiple of the group size {group_size}; "
            f"choose a group size that divides them"
        )
    groups = weight.reshape(-1, group_size)
    values = torch.empty(groups.shape, dtype=torch.int8)
    scales = torch.empty(len(groups), dtype=torch.float32)
    quantize = _quantize_signed if signed_scales else _quantize
    at_once = max(1, _ELEMENTS_AT_ONCE // group_size)
    for first in range(0, len(groups), at_once):
        part = slice(first, first + at_once)
        values[part], scales[part] = quantize(groups[part].float())
    return values.view(weight.shape), scales.view(*rows, -1)


def quantize_channels(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Round each row of `weight` [N, K] to int8: values [N, K] in [-127, 127], scales [N] > 0.

    Raises `ValueError` if a weight is not finite.
    """
    values = torch.empty(weight.shape, dtype=torch.int8)
    scales = torch.empty(len(weight), dtype=torch.float32)
    at_once = max(1, _ELEMENTS_AT_ONCE // weight.shape[1])
    for first in range(0, len(weight), at_once):
        part = slice(first, first + at_once)
        rows = weight[part].float()
        scale = _scale(_largest_magnitude(rows), 127.0)
        values[part] = (rows / scale[:, None]).round_().clamp_(-127, 127)
        scales[part] = scale
    return values, scales


def quantize_rows(
    rows_of: RowsOf, shape: tuple[int, ...], group_size: int | None, signed_scales: bool = False
) -> QuantizedTensor:
    """`quantize_groups` of the weight of that `shape` [..., K], or `quantize_channels` without a
    group size: some rows at a time, never the whole in memory."""
    *rows, columns = shape
    values = torch.empty(shape, dtype=torch.int8)
    scales = torch.empty((*rows, columns // group_size) if group_size else tuple(rows))
    flat_values = values.view(-1, columns)
    flat_scales = scales.view(len(flat_values), -1)
    error = total = 0.0
    at_once = max(1, _ELEMENTS_READ // columns)
    for first in range(0, len(flat_values), at_once):
        part = slice(first, first + at_once)
        weight = rows_of(part)
        rounded = (
            quantize_groups(weight, group_size, signed_scales)
            if group_size
            else quantize_channels(weight)
        )
        flat_values[part], flat_scales[part] = rounded[0], rounded[1].view(len(weight), -1)
        of_part = squared_error(weight, *rounded)
        error, total = error + of_part[0], total + of_part[1]
    negative = int((scales < 0).sum())
    return QuantizedTensor((values, scales), RoundingError(error, total, negative_scales=negative))


def _quantize(w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Groups w [G, g] to (values float [G, g], scales [G])."""
    largest = _largest_magnitude(w)
    unit = _unit(largest)
    scales = _fitted(w / unit[:, None], largest / unit) * unit
    scales.clamp_(min=_SMALLEST_SCALE)
    return _round(w, scales), scales


def _unit(largest: torch.Tensor) -> torch.Tensor:
    """A power of two near `largest` [G], and so exact: in it no square of small weights is lost."""
    return torch.exp2(torch.frexp(largest).exponent.clamp(-126, 127).float())


def _fitted(w: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
    """The scales [G], in bfloat16, of groups w [G, g] whose largest magnitudes are `largest`."""
    best_gain = torch.zeros_like(largest)
    best_scale = torch.ones_like(largest)
    best_fit = torch.ones_like(largest)
    for magnitude in _LARGEST:
        scale = _scale(largest, magnitude)
        values = _round(w, scale)
        # Of all scales for these integers the least-squares one is <w,q>/<q,q>; it leaves an
        # error of <w,w> - <w,q>^2/<q,q>, so the largest gain wins.
        dot = (w * values).sum(-1)
        norm = values.square_().sum(-1).clamp_(min=1.0)
        gain = dot.square() / norm
        better = gain > best_gain * _NOTICEABLE
        torch.where(better, gain, best_gain, out=best_gain)
        torch.where(better, scale, best_scale, out=best_scale)
        torch.where(better, dot / norm, best_fit, out=best_fit)

    # The gain is a difference of large numbers; the last choice is by the error itself.
    chosen, error = largest, None
    for candidate in (_scale(largest, 7.5), best_fit, best_scale):
        candidate = candidate.clamp(min=_SMALLEST_SCALE).bfloat16().float()
        found = (w - _round(w, candidate) * candidate[:, None]).square_().sum(-1)
        if error is None:
            chosen, error = candidate, found
            continue
        better = found < error
        chosen = torch.where(better, candidate, chosen)
        error = torch.where(better, found, error)
    return chosen


def _quantize_signed(w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same, each scale of the sign with which its group's largest weight is a negative
    multiple of it."""
    lowest, highest = w.aminmax(dim=-1)
    sign = torch.where(highest > -lowest, -1.0, 1.0)
    values, scales = _quantize(w * sign[:, None])
    return values, scales * sign


def _largest_magnitude(w: torch.Tensor) -> torch.Tensor:
    lowest, highest = w.aminmax(dim=-1)
    largest = torch.maximum(highest, -lowest)
    if not torch.isfinite(largest).all():  # NaN too: aminmax passes it on
        raise ValueError("holds a NaN or an infinite weight")
    return largest


def _scale(largest: torch.Tensor, magnitude: float) -> torch.Tensor:
    """The scale that makes `largest` into `magnitude`: positive, 1 for a group of zeros."""
    scale = (largest / magnitude).clamp_(min=_SMALLEST_SCALE)
    return torch.where(largest > 0, scale, 1.0)


def _round(w: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (w / scale[:, None]).round_().clamp_(INT4_MIN, INT4_MAX)


def squared_error(
    weight: torch.Tensor, values: torch.Tensor, scales: torch.Tensor
) -> tuple[float, float]:
    """(sum of squared differences, sum of squared weights) of `weight` [..., K] against its
    integers [..., K] times scales, [...] or [..., groups]."""
    error = total = 0.0
    weight, values = weight.flatten(0, -2), values.flatten(0, -2)
    groups = scales.view(len(weight), -1, 1)  # [N, groups, 1]
    at_once = max(1, _ELEMENTS_AT_ONCE // weight.shape[1])
    for first in range(0, len(weight), at_once):
        rows = slice(first, first + at_once)
        w, scale = weight[rows].float(), groups[rows]
        dequantized = values[rows].view(len(w), scale.shape[1], -1) * scale
        error += float((w - dequantized.view_as(w)).square_().sum())
        total += float(w.square().sum())
    return error, total
