"""Which rows of a table count as another than the checkpoint's."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from quatrain.verify.checks.embedding_tables import _rows, _Table, _wrong_rows


def table(weight: torch.Tensor, dtype: type = np.float16) -> _Table:
    return _Table(len(weight), weight.shape[1], partial(_rows, weight.numpy().astype(dtype)))


@pytest.fixture
def embedding() -> nn.Embedding:
    """Of the rows that nothing trained, two are small for float16 and one is zeros."""
    made = nn.Embedding(6, 8).requires_grad_(False)
    made.weight[2] *= 1e-8
    made.weight[3] *= 1e-24
    made.weight[5] = 0
    return made


def test_what_float16_cannot_hold_is_no_difference(embedding: nn.Embedding) -> None:
    wrong = _wrong_rows(table(embedding.weight), embedding)
    assert wrong is not None and not len(wrong)
    changed = embedding.weight.clone()
    changed[1] *= 1.01
    wrong = _wrong_rows(table(changed), embedding)
    assert wrong is not None and wrong.tolist() == [1]
    wrong = _wrong_rows(table(changed, np.float32), embedding)
    assert wrong is not None and wrong.tolist() == [1]


def test_a_table_of_another_form_says_nothing(embedding: nn.Embedding) -> None:
    """Such as one that holds what its rows are multiplied with: only its zeros are the same."""
    assert _wrong_rows(table(embedding.weight * 8, np.float32), embedding) is None
    assert _wrong_rows(table(embedding.weight[:, :4]), embedding) is None
    assert _wrong_rows(table(embedding.weight[:5]), embedding) is None
