import math

import pytest
import torch

from quatrain.backbone.perplexity import mean_and_error, perplexity_ratio, token_losses


def test_the_losses_are_those_of_cross_entropy() -> None:
    logits, targets = torch.randn(7, 5), torch.randint(5, (7,))
    wanted = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(token_losses(logits.log_softmax(-1), targets), wanted)


def test_the_ratio_is_of_the_perplexities_and_its_error_of_the_differences() -> None:
    losses, first = torch.rand(9).double(), torch.rand(9).double()
    ratio, error = perplexity_ratio(losses, first)
    assert ratio == pytest.approx(float(losses.mean().exp() / first.mean().exp()))
    assert error == pytest.approx(ratio * float((losses - first).std()) / 3)


def test_a_single_token_has_no_error() -> None:
    mean, error = mean_and_error(torch.ones(1))
    assert mean == 1 and math.isnan(error)
