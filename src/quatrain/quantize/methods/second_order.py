"""Rounding to int4 groups for the least error of what a linear computes, not of its weights.

For inputs with second moments H = E[x x^T] the error of a row's outputs is r H r^T, r what rounding
changed in it. Columns are rounded one by one, each error passed on to the columns not yet rounded
(GPTQ: Frantar et al., 2022), and then each again, the others being what they became (coordinate
descent, as in QuantEase: Behdin et al., 2023), with the scales refit.

Everything is held transposed, [K, N]: a column of the weight is a row in memory.
"""

from collections.abc import Iterator

import torch

from quatrain.int4 import INT4_MAX, INT4_MIN
from quatrain.quantize.methods.products import add_product, cholesky, product

# What the largest magnitude of a group may become: scales that are tried, beyond 7 clipping it.
_LARGEST = (6.0, 7.0, 7.5, 8.0, 8.75, 10.0)
_DAMPING = 0.1  # of H's mean diagonal; other texts lose less by it than by 0.01
_SWEEPS = 4
PASSES = 2 + _SWEEPS  # of a weight [N, K] through H [K, K]: products of N K^2 each
_ROWS_AT_ONCE = 2048
_PANEL = 128  # columns
_SMALLEST_SCALE = torch.finfo(torch.float32).tiny  # of the normal numbers


class SecondMoments:
    """H [K, K] of a linear's inputs, prepared for rounding weights in groups of `group_size`.

    Groups are rounded in the order of their mean second moment, the largest first, and so are the
    columns within a group; the columns of a group stay adjacent.
    """

    def __init__(self, moments: torch.Tensor, group_size: int) -> None:
        self.group_size = group_size
        diagonal = moments.diagonal()
        self.order = _order(diagonal, group_size)
        ordered = moments[self.order][:, self.order].double()
        damping = max(float(diagonal.double().mean()) * _DAMPING, 1e-30)
        ordered.diagonal().add_(damping)
        self.moments = ordered.float()
        # Row j of the upper factor U of H^-1 = U^T U says how column j's error is passed on. Its
        # inverse is the Cholesky factor of H from the last column to the first.
        inverse = cholesky(ordered.flip(0, 1)).flip(0, 1)
        self.passed_on = _invert_upper(inverse).float()

    def round(
        self, weight: torch.Tensor, signed_scales: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`weight` float32 [N, K] as int8 [N, K] in [-8, 7] and float32 scales [N, K / group size],
        bfloat16 values: positive, or with `signed_scales` with the sign for which -8 represents a
        group's largest weight."""
        values = torch.empty(weight.shape, dtype=torch.int8)
        scales = torch.empty(len(weight), weight.shape[1] // self.group_size)
        groups = self.order[:: self.group_size] // self.group_size
        for first in range(0, len(weight), _ROWS_AT_ONCE):
            rows = slice(first, first + _ROWS_AT_ONCE)
            w = weight[rows].float().T[self.order].contiguous()
            q, s = self._pass_errors_on(w, signed_scales)
            pull = product(self.moments, w - self._dequantized(q, s))
            for _ in range(_SWEEPS):
                self._sweep(q, s, pull)
            values[rows, self.order] = q.T.to(torch.int8)
            scales[rows, groups] = s.T
        return values, scales

    def _panels(self) -> Iterator[tuple[slice, list[slice]]]:
        """The columns of some adjacent groups, and those of each: what changes in a panel is passed
        on to the columns outside it in one product, which is faster than one for each group.
        """
        size = self.group_size
        panel = size * max(1, _PANEL // size)
        for top in range(0, len(self.order), panel):
            end = min(top + panel, len(self.order))
            yield slice(top, end), [slice(at, at + size) for at in range(top, end, size)]

    def _dequantized(self, values: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        return values * scales.repeat_interleave(self.group_size, 0)

    def _pass_errors_on(
        self, weight: torch.Tensor, signed_scales: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The integers [K, N], in float32, and scales [groups, N]: of several scales for each
        group that with which it loses least."""
        w, size = weight.clone(), self.group_size
        values, lost = torch.empty_like(w), torch.empty_like(w)
        scales = torch.empty(len(w) // size, w.shape[1])
        for panel, blocks in self._panels():
            for block in blocks:
                factor = self.passed_on[block, block]
                tried = _tried_scales(w[block], signed_scales)  # [C, N]
                q, errors = _round_block(w[block], tried, factor)
                best = errors.square().sum(0).argmin(0)  # [N], of errors [g, C, N]
                chosen = best.expand(size, 1, -1)
                values[block] = q.gather(1, chosen)[:, 0]
                scales[block.start // size] = tried.gather(0, best[None])[0]
                lost[block] = errors.gather(1, chosen)[:, 0]
                near = slice(block.stop, panel.stop)
                w[near].addmm_(self.passed_on[block, near].T, lost[block], alpha=-1)
            far = slice(panel.stop, None)
            add_product(w[far], self.passed_on[panel, far].T, lost[panel], factor=-1)
        return values, scales

    def _sweep(self, values: torch.Tensor, scales: torch.Tensor, pull: torch.Tensor) -> None:
        """Round each column again with the others fixed, and refit each group's scale, in place: no
        step increases r H r^T, except by rounding the scale. `pull`, H r [K, N], is kept up to
        date."""
        size = self.group_size
        for panel, blocks in self._panels():
            groups = slice(panel.start // size, panel.stop // size)
            before = self._dequantized(values[panel], scales[groups])
            near = pull[panel].clone()  # what the panel itself changes is in it at once
            for block in blocks:
                within = slice(block.start - panel.start, block.stop - panel.start)
                q, s, own = values[block], scales[block.start // size], self.moments[block, block]
                _round_again(q, s, near[within].clone(), own)
                s.copy_(_refit(q, s, near[within] + own @ (before[within] - q * s), own))
                near[within.stop :].addmm_(
                    self.moments[block.stop : panel.stop, block], before[within] - q * s
                )
            moved = before - self._dequantized(values[panel], scales[groups])
            add_product(pull, self.moments[:, panel], moved)


def _invert_upper(triangle: torch.Tensor) -> torch.Tensor:
    """The inverse of an upper triangular matrix [K, K], in place: by products of its quarters."""
    size = len(triangle)
    if size <= _PANEL:
        ones = torch.eye(size, dtype=triangle.dtype)
        return triangle.copy_(torch.linalg.solve_triangular(triangle, ones, upper=True))
    first, last = slice(size // 2), slice(size // 2, None)
    left, right = _invert_upper(triangle[first, first]), _invert_upper(triangle[last, last])
    triangle[first, last] = product(product(-left, triangle[first, last]), right)
    return triangle


def _order(diagonal: torch.Tensor, group_size: int) -> torch.Tensor:
    groups = diagonal.view(-1, group_size)
    within = groups.argsort(dim=-1, descending=True, stable=True)
    columns = within + torch.arange(0, len(diagonal), group_size)[:, None]
    return columns[groups.mean(-1).argsort(dim=0, descending=True, stable=True)].flatten()


def _tried_scales(block: torch.Tensor, signed: bool) -> torch.Tensor:
    """[C, N] for a group's weights [g, N]."""
    largest = block.abs().amax(0)
    largest = torch.where(largest > 0, largest, 1.0)
    if signed:
        largest = torch.where(block.amax(0) == largest, -largest, largest)
    return _as_stored(largest / torch.tensor(_LARGEST)[:, None])


def _as_stored(scales: torch.Tensor) -> torch.Tensor:
    return scales.abs().clamp(min=_SMALLEST_SCALE).copysign(scales).bfloat16().float()


def _round_block(
    weight: torch.Tensor, scales: torch.Tensor, factor: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """A group [g, N] rounded with each of `scales` [C, N], errors passed on within it by `factor`
    [g, g]: integers and errors in units of what they cost, [g, C, N] each."""
    w = weight[:, None].repeat(1, len(scales), 1)
    values, errors = torch.empty_like(w), torch.empty_like(w)
    inverse = 1.0 / scales
    for column in range(len(w)):
        q = torch.mul(w[column], inverse, out=values[column])
        q.round_().clamp_(INT4_MIN, INT4_MAX)
        error = torch.addcmul(w[column], q, scales, value=-1.0, out=errors[column])
        error.div_(factor[column, column])
        rest = w[column + 1 :].flatten(1)
        rest.addr_(factor[column, column + 1 :], error.flatten(), alpha=-1)
    return values, errors


def _refit(
    values: torch.Tensor, scale: torch.Tensor, pull: torch.Tensor, moments: torch.Tensor
) -> torch.Tensor:
    """The scale [N] that suits a group's integers [g, N] best, of the same sign as before; `pull`
    [g, N] is the group's part of H r."""
    curvature = (values * (moments @ values)).sum(0)
    fitted = scale + (values * pull).sum(0) / curvature.clamp(min=_SMALLEST_SCALE)
    fits = (curvature > 0) & (fitted.sign() == scale.sign())
    return _as_stored(torch.where(fits, fitted, scale))


def _round_again(
    values: torch.Tensor, scale: torch.Tensor, pull: torch.Tensor, moments: torch.Tensor
) -> None:
    """One step of coordinate descent for each column of a group: `values` [g, N] in place.

    `pull` [g, N], the group's part of H r, is used up; `moments` [g, g].
    """
    inverse = 1.0 / scale
    for column in range(len(values)):
        q = values[column]
        wished = torch.addcmul(q, pull[column], inverse, value=1.0 / float(moments[column, column]))
        wished.round_().clamp_(INT4_MIN, INT4_MAX)
        moved = (q - wished).mul_(scale)
        pull[column + 1 :].addr_(moments[column, column + 1 :], moved)
        values[column] = wished
