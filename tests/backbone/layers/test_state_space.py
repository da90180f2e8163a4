"""State spaces (Mamba-2) against transformers', in pieces, text after text."""

import pytest
import torch
from tests.support.models.families import GRANITE4_H
from tests.support.models.kept_state import (
    assert_pieces_equal_transformers,
    assert_side_by_side_equals_each_alone,
)
from tests.support.models.peers import TOLERANCE, random_model, relative_error, saved
from transformers.models.granitemoehybrid.modeling_granitemoehybrid import mamba2_chunk_scan

from quatrain.backbone.layers.delta_rule import CHUNK, StateSpace

LENGTH = CHUNK + 30
PIECES = [[7, 1, 1, 5, CHUNK, 16], [LENGTH]]


@pytest.fixture(scope="module", params=[1, 2], ids=["one group", "two groups"])
def granite4_h(request, tmp_path_factory):
    """A model, and its folder."""
    fields = GRANITE4_H | {"mamba_n_groups": request.param, "max_position_embeddings": 128}
    model = random_model("GraniteMoeHybrid", **fields)
    return model, saved(model, tmp_path_factory.mktemp("granite4"))


def test_pieces_and_texts_one_after_another_equal_transformers(granite4_h):
    """What a text leaves is not seen by the next, without any reset between them."""
    assert_pieces_equal_transformers(*granite4_h, PIECES, TOLERANCE)


def test_texts_side_by_side_equal_each_alone(granite4_h):
    assert_side_by_side_equals_each_alone(*granite4_h, TOLERANCE)


@pytest.mark.parametrize("decays", ["usual", "nothing decays", "some forget all"])
def test_the_rule_at_once_equals_transformers_scan(decays):
    """Where decays differ much, differences of their sums would cancel."""
    torch.manual_seed(0)
    heads, width, size = 3, 24, 16
    x, step = torch.randn(1, LENGTH, heads, width), torch.rand(1, LENGTH, heads)
    write, read = (torch.randn(1, LENGTH, 1, size) for _ in range(2))
    rates = {"usual": [-1.0, -4.0, -16.0], "nothing decays": [-1e-30] * 3}.get(decays)
    if rates is None:
        rates = [-1e-3, -1.0, -300.0]
    rates = torch.tensor(rates)
    exact = (each.double() for each in (x, step, rates, write, read))
    # It computes in float32 whatever it is given, in chunks of one token not by differences.
    theirs, state = mamba2_chunk_scan(*exact, chunk_size=1, return_final_states=True)
    space = StateSpace(heads, size, width, one_key=True)
    ours = space(read, write, x, step * rates, step, 0)
    assert relative_error(ours, theirs) < 2e-6
    assert relative_error(space.recurrent_state, state.transpose(2, 3)) < 2e-6
