"""Texts that a model goes on with."""

import torch

from quatrain.quantize.generated_text import beginnings


def test_pieces_begin_as_all_texts_do() -> None:
    """With the token before every text, where there is one, and else anywhere."""
    texts = torch.arange(4 * 64).view(4, 64)
    generator = torch.Generator().manual_seed(0)
    found = beginnings(texts, 50, generator)
    assert found.shape == (50, 32)
    assert torch.equal(found.diff(), torch.ones(50, 31, dtype=torch.int64))
    assert torch.equal(found[:, 0] // 64, found[:, -1] // 64)  # of one text each
    assert len(found[:, 0].unique()) > 25
    texts[:, 0] = 999
    begun = beginnings(texts, 50, generator)
    assert (begun[:, 0] == 999).all() and (begun[:, 1:] != 999).all()
