"""Weights to integers: range, error, grids, and nothing that is not finite."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quatrain.errors import InputError
from quatrain.quantize.methods.round_to_nearest import (
    quantize_channels,
    quantize_groups,
    squared_error,
)

FAST = settings(max_examples=60, deadline=None)


def dequantize(values, scales):
    grouped = values.view(*scales.shape, -1) * scales[..., None]
    return grouped.view(values.shape)


def errors(weight, values, scales, group_size):
    """Squared error of each group, float64."""
    difference = weight.double() - dequantize(values, scales).double()
    return difference.square().view(-1, group_size).sum(-1)


def test_a_negative_scale_where_the_largest_weight_is_positive():
    grid = torch.arange(-7, 9).repeat(2)[None] * 0.25  # 8 is the largest
    values, scales = quantize_groups(grid, 32, signed_scales=True)
    assert torch.equal(values.float() * scales, grid) and bool(scales < 0)
    positive = quantize_groups(grid, 32)
    assert not torch.equal(positive[0] * positive[1], grid) and bool(positive[1] > 0)
    assert torch.equal(quantize_groups(-grid, 32, signed_scales=True)[1], -scales)


@st.composite
def weights(draw):
    """Random shape, group size, spread, heavy tails, some groups of zeros."""
    group_size = draw(st.sampled_from((16, 32, 64, 128, 256)))
    rows, groups = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    weight = torch.randn(rows, groups * group_size, generator=generator)
    weight = weight.sign() * weight.abs() ** draw(st.sampled_from((1, 3)))
    weight *= 10.0 ** draw(st.integers(-30, 30))
    if draw(st.booleans()):
        weight[0, :group_size] = 0
    return weight, group_size


@FAST
@given(weights())
def test_either_sign_is_positive_scales_of_the_group_or_of_its_negative(case):
    weight, group_size = case
    values, scales = quantize_groups(weight, group_size, signed_scales=True)
    sign = scales.sign().repeat_interleave(group_size, 1)
    of_other = quantize_groups(weight * sign, group_size)
    assert torch.equal(values, of_other[0]) and torch.equal(scales.abs(), of_other[1])
    largest = weight.view(*scales.shape, group_size)
    assert torch.equal(scales < 0, largest.amax(-1) > -largest.amin(-1))


@FAST
@given(weights())
def test_in_range_and_no_worse_than_plain_rounding(case):
    weight, group_size = case
    values, scales = quantize_groups(weight, group_size)
    assert values.dtype == torch.int8 and values.shape == weight.shape
    assert scales.dtype == torch.float32
    assert scales.shape == (len(weight), weight.shape[1] // group_size)
    assert int(values.min()) >= -8 and int(values.max()) <= 7
    assert bool((scales > 0).all()) and bool(scales.isfinite().all())

    largest = weight.abs().view(*scales.shape, group_size).amax(-1)
    assert torch.equal(scales, scales.bfloat16().float())
    plain_scales = torch.where(largest > 0, largest / 7.5, 1.0).bfloat16().float()
    plain = (weight.view(*scales.shape, -1) / plain_scales[..., None]).round().clamp(-8, 7)
    plain = plain.to(torch.int8).view(weight.shape)
    found = errors(weight, values, scales, group_size)
    assert bool((found <= errors(weight, plain, plain_scales, group_size) * (1 + 1e-4)).all())


@FAST
@given(weights())
def test_the_same_weights_give_the_same_integers(case):
    first, second = quantize_groups(*case), quantize_groups(*case)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


@FAST
@given(
    group_size=st.sampled_from((32, 64)),
    largest=st.integers(1, 8),
    seed=st.integers(0, 2**31),
    scale=st.integers(1, 255).map(lambda mantissa: mantissa * 2.0**-16),
)
def test_weights_on_a_grid_come_back_exactly(group_size, largest, seed, scale):
    """Integers in [-8, 7] times a bfloat16 scale."""
    generator = torch.Generator().manual_seed(seed)
    low, high = -largest, min(largest, 7)
    integers = torch.randint(low, high + 1, (3, group_size), generator=generator)
    integers[:, 0] = low
    weight = integers * scale
    values, scales = quantize_groups(weight, group_size)
    assert torch.equal(dequantize(values, scales), weight)


def test_what_it_wrote_stays_as_it_is():
    """Quantizing a dequantized weight changes nothing."""
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    first = dequantize(*quantize_groups(weight, 32))
    second = dequantize(*quantize_groups(first, 32))
    assert torch.allclose(first, second, rtol=1e-6, atol=0)


def test_better_than_plain_rounding_on_weights_like_a_models():
    weight = torch.randn(64, 512, generator=torch.Generator().manual_seed(0)) * 0.02
    error, total = squared_error(weight, *quantize_groups(weight, 32))
    assert math.sqrt(error / total) < 0.088  # plain: 0.0949


def test_half_precision_weights():
    weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    values, scales = quantize_groups(weight, 32)
    expected = quantize_groups(weight.float(), 32)
    assert torch.equal(values, expected[0]) and torch.equal(scales, expected[1])


def test_chunks_do_not_show():
    weight = torch.randn(3000, 128, generator=torch.Generator().manual_seed(0))
    values, scales = quantize_groups(weight, 32)
    for row in (0, 2047, 2048, 2999):
        alone = quantize_groups(weight[row : row + 1], 32)
        assert torch.equal(values[row], alone[0][0]) and torch.equal(scales[row], alone[1][0])


@pytest.mark.parametrize("function", [lambda w: quantize_groups(w, 32), quantize_channels])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_not_finite(function, value):
    weight = torch.zeros(4, 64)
    weight[2, 40] = value
    with pytest.raises(ValueError, match="NaN or an infinite"):
        function(weight)


def test_a_group_size_that_does_not_divide():
    with pytest.raises(InputError, match="96 input features, not a multiple of the group size 64"):
        quantize_groups(torch.zeros(2, 96), 64)


@FAST
@given(weights())
def test_channels(case):
    weight, _ = case
    values, scales = quantize_channels(weight)
    assert values.dtype == torch.int8 and int(values.min()) >= -127
    assert scales.shape == (len(weight),) and bool((scales > 0).all())
    error = (weight.double() - values.double() * scales[:, None].double()).abs()
    assert bool((error <= scales[:, None] * 0.501).all())


def test_squared_error():
    weight = torch.randn(5, 96, generator=torch.Generator().manual_seed(0))
    for values, scales in (quantize_groups(weight, 32), quantize_channels(weight)):
        grouped = scales.view(5, -1)
        error, total = squared_error(weight, values, scales)
        expected = (weight - dequantize(values, grouped)).square().sum()
        assert error == pytest.approx(float(expected), rel=1e-4)
        assert total == pytest.approx(float(weight.square().sum()), rel=1e-4)
