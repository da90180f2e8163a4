"""Rounding by second moments, against the method's own definition written out."""

import pytest
import torch

from quatrain.quantize.methods.round_to_nearest import quantize_groups
from quatrain.quantize.methods.second_order import SecondMoments

ROWS, COLUMNS, GROUP = 48, 128, 32


@pytest.fixture(scope="module")
def inputs() -> torch.Tensor:
    """Correlated, some columns a hundred times as strong as others."""
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(COLUMNS, COLUMNS, generator=generator) / COLUMNS**0.5
    strength = 10 ** (2 * torch.rand(COLUMNS, generator=generator) - 1)
    return torch.randn(1000, COLUMNS, generator=generator) @ mixing * strength


@pytest.fixture(scope="module")
def weight() -> torch.Tensor:
    return torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(2))


def output_error(inputs, weight, values, scales) -> float:
    rounded = (values.view(ROWS, -1, GROUP) * scales[..., None]).flatten(1)
    return float((inputs @ (weight - rounded).T).square().sum())


def plain_gptq(weight: torch.Tensor, moments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Algorithm 1 of the paper: columns in their order, each group scaled by its largest weight
    when its turn comes."""
    damped = moments.double() + 0.01 * moments.diagonal().mean() * torch.eye(COLUMNS)
    factor = torch.linalg.cholesky(damped.inverse(), upper=True)
    left, values = weight.double().clone(), torch.empty(ROWS, COLUMNS)
    scales = torch.empty(ROWS, COLUMNS // GROUP)
    for column in range(COLUMNS):
        if column % GROUP == 0:
            largest = left[:, column : column + GROUP].abs().amax(1)
            scales[:, column // GROUP] = scale = (largest / 7.5).bfloat16().double()
        q = (left[:, column] / scale).round().clamp(-8, 7)
        values[:, column] = q
        error = (left[:, column] - q * scale) / factor[column, column]
        left[:, column + 1 :] -= error[:, None] * factor[column, column + 1 :]
    return values.to(torch.int8), scales.float()


def test_less_is_lost_than_by_the_papers_algorithm(inputs, weight):
    moments = inputs.T @ inputs / len(inputs)
    ours = output_error(inputs, weight, *SecondMoments(moments, GROUP).round(weight))
    papers = output_error(inputs, weight, *plain_gptq(weight, moments))
    nearest = output_error(inputs, weight, *quantize_groups(weight, GROUP))
    assert ours < 0.8 * papers < papers < nearest


def test_less_is_lost_with_scales_of_either_sign(inputs, weight):
    moments = SecondMoments(inputs.T @ inputs / len(inputs), GROUP)
    values, scales = moments.round(weight, signed_scales=True)
    signed = output_error(inputs, weight, values, scales)
    assert signed < 0.95 * output_error(inputs, weight, *moments.round(weight))
    assert values.min() >= -8 and values.max() <= 7
    assert 0.4 < (scales < 0).float().mean() < 0.6


def test_integers_and_scales_are_as_the_layout_has_them(inputs, weight):
    values, scales = SecondMoments(inputs.T @ inputs, GROUP).round(weight)
    assert values.dtype == torch.int8 and values.min() >= -8 and values.max() <= 7
    assert scales.shape == (ROWS, COLUMNS // GROUP) and (scales > 0).all()
    assert torch.equal(scales, scales.bfloat16().float())


def test_a_weight_on_a_grid_is_found_again(inputs):
    generator = torch.Generator().manual_seed(3)
    values = torch.randint(-8, 8, (ROWS, COLUMNS), generator=generator)
    values.view(ROWS, -1, GROUP)[..., 0] = -8
    scales = torch.rand(ROWS, COLUMNS // GROUP, generator=generator).add(0.5).bfloat16().float()
    weight = (values.view(ROWS, -1, GROUP) * scales[..., None]).flatten(1)
    found = SecondMoments(inputs.T @ inputs, GROUP).round(weight)
    assert torch.equal(found[0], values.to(torch.int8)) and torch.equal(found[1], scales)


def test_uncorrelated_inputs_leave_each_group_to_itself(weight):
    """H the identity: no more is lost than by rounding to nearest, whose measure this is."""
    identity = torch.eye(COLUMNS)
    ours = output_error(identity, weight, *SecondMoments(identity, GROUP).round(weight))
    nearest = output_error(identity, weight, *quantize_groups(weight, GROUP))
    assert ours < 1.02 * nearest


@pytest.mark.parametrize("column", [0, 77])
def test_columns_that_are_never_used(inputs, weight, column):
    unused = inputs.clone()
    unused[:, column] = 0
    values, scales = SecondMoments(unused.T @ unused, GROUP).round(weight)
    assert torch.isfinite(scales).all() and values.abs().max() <= 8
