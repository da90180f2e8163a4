"""Mixtures of experts: that of Llama 4 (Meta, 2025), and those whose experts' answers are weighed
(Mixtral, Qwen 2, 3 and 3.5 MoE, Qwen 3 Next, OLMoE, Granite MoE, LFM2 MoE)."""

from collections.abc import Callable

import torch
from torch import nn

from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.layers.feed_forward import FeedForward
from quatrain.backbone.layers.scaling import factor_or_none

# expert, x [B, T, dim], score [B, T, 1]: what the expert adds, [B, T, dim].
_Answer = Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]
# Beside the sum of sigmoids, all of which may be near 0: `Lfm2MoeTopKRouter` of transformers.
_SMALLEST_SUM = 1e-6


class MixtureOfExperts(nn.Module):
    """The few experts that a router picks for a token, and perhaps a shared one for every token,
    whose answer a gate of its own may weigh.

    What x [B, T, dim] is to an expert, or what that answers (`weigh_experts`), is multiplied by its
    score: of the sigmoids, or the softmax, of the router's logits those of the
    `num_activated_experts` largest, made to sum to 1 with `norm_topk_prob` and multiplied by
    `routed_scaling_factor`, and 0 for the rest. With `use_expert_bias` the largest are those of the
    scores with a bias for each expert.

    An expert has no bias in its linears, so that it answers 0 to 0: **all are computed**, for every
    token, at num_experts times the work of one, which is what a graph without branches can do.
    `skips_experts`: those that no token of a call picks are left out, for a runtime that has
    branches. A checkpoint holds w1, w2 and w3 of all experts as one tensor each, [num_experts, N,
    K].
    """

    places_from_the_end: torch.Tensor

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.activated = config.num_activated_experts
        self.is_softmax = config.router_scores == "softmax"
        self.normalizes = config.norm_topk_prob
        self.weighs_answers = config.weigh_experts == "outputs"
        self.answer: _Answer = _weighted_output if self.weighs_answers else _output_of_weighted
        self.skips_experts = False
        self.router = nn.Linear(config.dim, config.num_experts, bias=False)
        self.expert_bias = ExpertBias(config.num_experts) if config.use_expert_bias else None
        self.scale_scores = factor_or_none(config.routed_scaling_factor)
        places = torch.arange(config.num_experts, 0, -1, device="cpu").float()
        self.register_buffer("places_from_the_end", places, persistent=False)
        self.experts = nn.ModuleList(
            FeedForward(config, config.expert_dim, bias=False) for _ in range(config.num_experts)
        )
        shared = config.use_shared_expert
        width = config.shared_expert_dim
        self.shared_expert = FeedForward(config, width, bias=False) if shared else None
        gated = shared and config.use_shared_expert_gate
        self.shared_gate = SharedExpertGate(config.dim) if gated else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.scores(x)
        result = None if self.shared_expert is None else self.shared_expert(x)
        if self.shared_gate is not None:
            result = result * self.shared_gate(x)
        if result is None and self.skips_experts:
            # What a branch gives must be added at once: ExecuTorch writes the next one's over it.
            result = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            score = scores[..., index : index + 1]
            if self.skips_experts:
                given = _if_picked(self.answer, expert, x, score)
            else:
                given = self.answer(expert, x, score)
            result = given if result is None else result + given
        assert result is not None
        return result

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """What each expert is weighed by: [B, T, num_experts], 0 for those not picked. Of experts
        that are equal the first is."""
        logits = self.router(x)
        all_scores = torch.softmax(logits, -1) if self.is_softmax else torch.sigmoid(logits)
        none, one = torch.zeros_like(logits), torch.ones_like(logits)
        rest = logits if self.expert_bias is None else self.expert_bias(all_scores)
        scores = none
        # Vulkan has no top-k: k times the first of the largest, which is then hidden.
        for _ in range(self.activated):
            largest = rest >= rest.amax(-1, keepdim=True)
            places = torch.where(largest, one, none) * self.places_from_the_end
            first = places >= places.amax(-1, keepdim=True)
            scores = torch.where(first, all_scores, scores)
            rest = torch.where(first, torch.full_like(rest, -torch.inf), rest)
        if self.normalizes:
            scores = scores / self._sum(scores)
        return scores if self.scale_scores is None else self.scale_scores(scores)

    def _sum(self, scores: torch.Tensor) -> torch.Tensor:
        total = scores.sum(-1, keepdim=True)
        return total if self.is_softmax else total + _SMALLEST_SUM


class SharedExpertGate(nn.Module):
    """`sigmoid(x . weight)`, what a shared expert's answer is weighed by: x [B, T, dim], weight
    [dim]; returns [B, T, 1].

    Source: `Qwen3_5MoeSparseMoeBlock` of transformers' `modeling_qwen3_5_moe.py`.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid((x * self.weight).sum(-1, keepdim=True))


class ExpertBias(nn.Module):
    """`scores + bias`, a learned number for each expert that balances how often each is picked
    (Wang et al., 2024, "Auxiliary-Loss-Free Load Balancing Strategy for Mixture-of-Experts"):
    scores [B, T, num_experts], bias [num_experts]."""

    def __init__(self, experts: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(experts), requires_grad=False)

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        return scores + self.bias


def skip_experts(module: nn.Module) -> None:
    """Let each mixture of experts below `module` leave out experts that no token picks.

    For tracing: run eagerly, each branch would be compiled first.
    """
    for mixture in _mixtures(module):
        mixture.skips_experts = True


def show_picked_tokens(module: nn.Module) -> None:
    """Let each expert below `module` see zeros in place of the tokens that do not pick it, which
    changes nothing of what is computed: for those who look at what a linear sees."""
    for mixture in _mixtures(module):
        if mixture.weighs_answers:
            mixture.answer = _weighted_if_chosen


def _mixtures(module: nn.Module) -> list[MixtureOfExperts]:
    return [part for part in module.modules() if isinstance(part, MixtureOfExperts)]


def _output_of_weighted(expert: nn.Module, x: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
    return expert(x * score)


def _weighted_output(expert: nn.Module, x: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
    return expert(x) * score


def _weighted_if_chosen(expert: nn.Module, x: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
    return expert(x * (score > 0)) * score


def _if_picked(
    answer: _Answer, expert: nn.Module, x: torch.Tensor, score: torch.Tensor
) -> torch.Tensor:
    # Neither branch may hand on an operand: ExecuTorch would leave it where it is.
    return torch.cond(
        score.amax() > 0,
        lambda x, score: answer(expert, x, score),
        lambda x, score: torch.zeros_like(x),
        (x, score),
    )
