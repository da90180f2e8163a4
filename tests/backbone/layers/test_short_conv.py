"""Gated short convolutions against transformers' and ExecuTorch's, in pieces, text after text."""

import pytest
from tests.support.models.families import ROWS
from tests.support.models.kept_state import (
    assert_equals_executorch,
    assert_pieces_equal_transformers,
    assert_side_by_side_equals_each_alone,
)
from tests.support.models.peers import (
    TOLERANCE,
    random_model,
    saved,
)

KINDS = ["conv", "full_attention", "conv", "conv"]
PIECES = [[7, 1, 1, 5, 10], [1] * 24, [1, 2, 1, 20], [24]]


@pytest.fixture(scope="module")
def lfm2(tmp_path_factory):
    """A model, and its folder."""
    model = random_model("Lfm2", **ROWS["lfm2"].fields)
    return model, saved(model, tmp_path_factory.mktemp("lfm2"))


def test_pieces_and_texts_one_after_another_equal_transformers(lfm2):
    """What a text leaves is not seen by the next, without any reset between them."""
    assert_pieces_equal_transformers(*lfm2, PIECES, TOLERANCE)


def test_texts_side_by_side_equal_each_alone(lfm2):
    assert_side_by_side_equals_each_alone(*lfm2, TOLERANCE)


def test_equals_executorch(tmp_path):
    """By its names of parameters and tensors: the three projections are three there too."""
    fields = {"layer_types": KINDS, "use_qk_norm": True, "qk_norm_before_rope": True,
              "use_hf_rope": True}  # fmt: skip
    assert_equals_executorch(tmp_path, fields, (1, 2, 5, 12))
