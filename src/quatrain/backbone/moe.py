"""The mixture of experts of Llama 4 (Meta, 2025)."""

import torch
from torch import nn

from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.feed_forward import FeedForward


class MixtureOfExperts(nn.Module):
    """A shared expert for every token, and the few of the others that its router picks.

    x [1, T, dim] goes to each expert multiplied by its score: the sigmoid of the router's logit
    for the `num_activated_experts` largest, 0 for the rest. An expert has no bias, so that it
    answers 0 to 0: **all are computed**, for every token, at num_experts times the work of one,
    which is what a graph without branches can do. `skips_experts`: those that no token of a call
    picks are left out, for a runtime that has branches. A checkpoint holds w1, w2 and w3 of all
    experts as one tensor each, [num_experts, N, K].
    """

    places_from_the_end: torch.Tensor

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.activated = config.num_activated_experts
        self.skips_experts = False
        self.router = nn.Linear(config.dim, config.num_experts, bias=False)
        places = torch.arange(config.num_experts, 0, -1, device="cpu").float()
        self.register_buffer("places_from_the_end", places, persistent=False)
        self.experts = nn.ModuleList(
            FeedForward(config, config.expert_dim) for _ in range(config.num_experts)
        )
        self.shared_expert = FeedForward(config, config.expert_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.scores(x)
        result = self.shared_expert(x)
        for index, expert in enumerate(self.experts):
            score = scores[..., index : index + 1]
            answer = _if_picked if self.skips_experts else _always
            result = result + answer(expert, x, score)
        return result

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """What each expert's input is multiplied by: [1, T, num_experts], 0 for those not
        picked. Of experts whose logits are equal the first is."""
        logits = self.router(x)
        none, one = torch.zeros_like(logits), torch.ones_like(logits)
        rest, scores, all_scores = logits, none, torch.sigmoid(logits)
        # Vulkan has no top-k: k times the first of the largest, which is then hidden.
        for _ in range(self.activated):
            largest = rest >= rest.amax(-1, keepdim=True)
            places = torch.where(largest, one, none) * self.places_from_the_end
            first = places >= places.amax(-1, keepdim=True)
            scores = torch.where(first, all_scores, scores)
            rest = torch.where(first, torch.full_like(rest, -torch.inf), rest)
        return scores


def skip_experts(module: nn.Module) -> None:
    """Let each mixture of experts below `module` leave out experts that no token picks.

    For tracing: run eagerly, each branch would be compiled first.
    """
    for mixture in module.modules():
        if isinstance(mixture, MixtureOfExperts):
            mixture.skips_experts = True


def _always(expert: nn.Module, x: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
    return expert(x * score)


def _if_picked(expert: nn.Module, x: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
    # Neither branch may hand on an operand: ExecuTorch would leave it where it is.
    return torch.cond(
        score.amax() > 0,
        lambda x, score: expert(x * score),
        lambda x, score: torch.zeros_like(x),
        (x, score),
    )
