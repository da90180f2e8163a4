"""Which rows of a table count as another than the checkpoint's."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from quatrain.verify.checks import embedding_tables
from quatrain.verify.checks.embedding_tables import not_nearest
from quatrain.verify.checks.stored_tables import StoredTable, mapped_rows


def table(weight: torch.Tensor, dtype: type = np.float16) -> StoredTable:
    return StoredTable(
        len(weight), weight.shape[1], None, partial(mapped_rows, weight.numpy().astype(dtype))
    )


def _wrong_rows(
    one: StoredTable, embedding: nn.Embedding, strict: bool = False, folded: float | None = None
) -> torch.Tensor | StoredTable | None:
    fit = embedding_tables._most_like([one], embedding)
    if fit is None:
        return None
    return embedding_tables._wrong_rows(fit, embedding, strict, folded, lambda part: None)


@pytest.fixture
def embedding() -> nn.Embedding:
    """Of the rows that nothing trained, two are small for float16 and one is zeros."""
    made = nn.Embedding(6, 8).requires_grad_(False)
    made.weight[2] *= 1e-8
    made.weight[3] *= 1e-24
    made.weight[5] = 0
    return made


def test_values_beyond_float16_are_not_a_difference(embedding: nn.Embedding) -> None:
    wrong = _wrong_rows(table(embedding.weight), embedding)
    assert wrong is not None and not len(wrong)
    changed = embedding.weight.clone()
    changed[1] *= 1.01
    wrong = _wrong_rows(table(changed), embedding)
    assert wrong is not None and wrong.tolist() == [1]
    wrong = _wrong_rows(table(changed, np.float32), embedding)
    assert wrong is not None and wrong.tolist() == [1]


def test_a_table_of_another_form_says_nothing(embedding: nn.Embedding) -> None:
    """Such as one that holds what its rows are multiplied with: only its zeros are the same; or of
    a damaged file whose rows cannot be read."""
    eightfold = table(embedding.weight * 8, np.float32)
    assert _wrong_rows(eightfold, embedding, folded=8.0) is None
    assert _wrong_rows(table(embedding.weight * 8.1, np.float32), embedding, folded=8.0) is not None
    assert _wrong_rows(table(embedding.weight[:, :4]), embedding) is None
    assert _wrong_rows(table(embedding.weight[:5]), embedding) is None
    cut = partial(mapped_rows, np.zeros((2, 8), np.float32))
    short = replace(table(embedding.weight), rows=cut)
    assert _wrong_rows(short, embedding) is None


@pytest.mark.parametrize("factor", [1.0005, 1.01, 8.0])
def test_a_table_with_an_uncorrected_factor_is_reported(
    factor: float, embedding: nn.Embedding
) -> None:
    """Whoever exported it; a program of ours holds the rows as they are even where the model
    multiplies them by as much."""
    off = table(embedding.weight * factor, np.float32)
    for strict, folded in ((False, None), (False, 2.0), (True, factor)):
        wrong = _wrong_rows(off, embedding, strict, folded)
        assert wrong is not None and wrong.tolist() == [0, 1, 2, 3, 4]


def test_a_table_whose_every_row_differs_is_reported(embedding: nn.Embedding) -> None:
    """Of the same model before it was trained further."""
    noise = torch.rand(6, 8, generator=torch.Generator().manual_seed(0))
    wrong = _wrong_rows(table(embedding.weight * (1 + noise / 10), np.float32), embedding)
    assert wrong is not None and wrong.tolist() == [0, 1, 2, 3, 4]


def test_of_a_table_that_is_rounded_once_more_the_nearest_integers_are_right() -> None:
    embedding = nn.Embedding(6, 64).requires_grad_(False)
    steps = embedding.weight.abs().amax(1, keepdim=True) / 9  # the largest are beyond 7
    integers = (embedding.weight / steps).round().clamp(-8, 7)
    changed = integers * steps
    changed[4] *= 1.04
    found = []
    for weight in (integers * steps, changed, integers * steps * 1.2, changed.flip(0)):
        one = replace(table(weight, np.float32), bits=4, steps=partial(mapped_rows, steps.numpy()))
        is_other = _wrong_rows(one, embedding)
        assert is_other == one or is_other is None
        found.append(not_nearest(one, embedding))
    right, one_row, *unknown = found
    assert right is not None and not len(right)
    assert one_row is not None and one_row.tolist() == [4]
    assert unknown == [None, None]
    assert not_nearest(replace(one, steps=None), embedding) is None
