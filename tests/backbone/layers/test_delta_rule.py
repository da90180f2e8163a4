"""Gated delta rules against transformers' and ExecuTorch's, in pieces, text after text."""

import pytest
import torch
from tests.support.models.families import QWEN3_5
from tests.support.models.kept_state import (
    assert_equals_executorch,
    assert_pieces_equal_transformers,
    assert_side_by_side_equals_each_alone,
)
from tests.support.models.peers import (
    TOLERANCE,
    random_model,
    relative_error,
    saved,
)
from transformers.models.qwen3_5.modeling_qwen3_5 import torch_recurrent_gated_delta_rule

from quatrain.backbone.layers.delta_rule import CHUNK, DeltaRule

# transformers computes the rule in float32, whatever its weights are.
BOUND = 3 * TOLERANCE
LENGTH = CHUNK + 30
PIECES = [[7, 1, 1, 5, CHUNK, 16], [LENGTH]]


@pytest.fixture(scope="module")
def qwen3_5(tmp_path_factory):
    """A model, and its folder."""
    model = random_model("Qwen3_5", **QWEN3_5, max_position_embeddings=128)
    return model, saved(model, tmp_path_factory.mktemp("qwen3_5"))


def test_pieces_and_texts_one_after_another_equal_transformers(qwen3_5):
    """What a text leaves is not seen by the next, without any reset between them."""
    assert_pieces_equal_transformers(*qwen3_5, PIECES, BOUND)


def test_texts_side_by_side_equal_each_alone(qwen3_5):
    assert_side_by_side_equals_each_alone(*qwen3_5, BOUND)


def test_equals_executorch(tmp_path):
    """By its names of parameters and tensors."""
    fields = {
        "layer_types": ["linear_attention", "full_attention"] * 2, "linear_num_key_heads": 2,
        "linear_num_value_heads": 4, "linear_key_head_dim": 32, "linear_value_head_dim": 16,
    }  # fmt: skip
    assert_equals_executorch(tmp_path, fields, (1, 5, 12))


def _gates(kind: str, heads: int) -> tuple[torch.Tensor, torch.Tensor]:
    log_decay = -torch.nn.functional.softplus(torch.randn(1, LENGTH, heads)) * 4
    strength = torch.rand(1, LENGTH, heads)
    if kind == "nothing decays":
        return log_decay * 0, torch.ones_like(strength)
    if kind == "some forget all":
        return torch.where(strength < 0.3, -300.0, log_decay * 0.001), strength
    return log_decay, strength


@pytest.mark.parametrize("keys", ["unlike", "alike", "in turns"])
@pytest.mark.parametrize("gates", ["usual", "nothing decays", "some forget all"])
def test_the_rule_at_once_equals_token_by_token(keys, gates):
    """Where keys are alike and nothing decays, a series of powers would overflow; where decays
    differ much, differences of their sums would cancel."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, LENGTH, 2, width) for width in (16, 16, 24))
    if keys != "unlike":
        k = 1 + 0.01 * k
    if keys == "in turns":
        k[:, ::2] *= -1
    q, k = (torch.nn.functional.normalize(each, dim=-1) for each in (q, k))
    log_decay, strength = _gates(gates, 2)
    exact = (each.double() for each in (q, k, v, log_decay, strength))
    theirs, state = torch_recurrent_gated_delta_rule(*exact, output_final_state=True)
    rule = DeltaRule(2, 16, 24)
    ours = rule(q * 16**-0.5, k, v, log_decay, strength, 0)
    assert relative_error(ours, theirs) < 2e-6
    assert relative_error(rule.recurrent_state, state) < 2e-6
