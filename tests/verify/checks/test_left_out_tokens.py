"""Tokens that an output layer has no row for: -inf, or the least number of float16."""

import torch

from quatrain.verify.checks.parity import compare_logits

LEAST = torch.finfo(torch.float16).min


def error(expected: list[float], found: list[float]) -> float:
    return compare_logits([[torch.tensor(expected)]], [[torch.tensor(found)]]).logits_error


def test_tokens_without_a_row_are_left_out_in_float16_too() -> None:
    expected = [1.0, -torch.inf, 2.0]
    assert error(expected, [1.0, -torch.inf, 2.0]) == 0
    assert error(expected, [1.0, LEAST, 2.0]) == 0
    assert error(expected, [1.0, LEAST, 2.5]) > 0.1
    assert not error(expected, [LEAST, 1.0, 2.0]) < 1
    assert not error([1.0, 0.0, 2.0], [1.0, LEAST, 2.0]) < 1
