"""The logits that are given to routers have every expert picked."""

import torch
from tests.support.models.knobs import TINY

from quatrain.backbone.layers.moe import MixtureOfExperts
from quatrain.backbone.params.params import config_from_params
from quatrain.verify.checks.layerwise import router_logits


def test_experts_are_picked_whatever_their_biases() -> None:
    """LFM2 MoE adds one to each score, which may be more than what parts two scores."""
    fields = {
        "num_experts": 16, "num_activated_experts": 3, "use_expert_bias": True,
        "router_scores": "sigmoid", "weigh_experts": "outputs", "norm_topk_prob": True,
    }  # fmt: skip
    config = config_from_params({**TINY, **fields}, "params.json")
    mixture = MixtureOfExperts(config)
    assert mixture.expert_bias is not None
    mixture.expert_bias.bias.copy_(torch.linspace(-0.3, 0.3, 16))
    given = router_logits(mixture, range(6))
    mixture.router.register_forward_hook(lambda *_: given)
    picked = mixture.scores(torch.zeros(1, 6, config.dim)) > 0
    assert picked.any(1).all() and (picked.sum(-1) == 3).all()
