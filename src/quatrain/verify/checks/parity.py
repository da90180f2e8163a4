"""Compares a program's logits with its eager backbone's, in prefill and decode."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from quatrain.backbone.layers.moe import MixtureOfExperts
from quatrain.backbone.model import Backbone
from quatrain.backbone.perplexity import kl_divergence
from quatrain.errors import InputError
from quatrain.runtime.runner import Runner, forward_in_parts
from quatrain.verify.checks.layerwise import relative_error


@dataclass(frozen=True)
class Parity:
    """How close two models' logits are over some prompts, each continued by the first's choice.

    `logits_error`: the largest relative error of a step. `top1_agreement`: the part of steps
    with the same most likely token. `kl`: the mean divergence in nats. `first_difference`: the
    generated token at which greedy decoding parts, of all prompts the earliest; None: never.
    """

    logits_error: float
    top1_agreement: float
    kl: float
    first_difference: int | None


@torch.inference_mode()
def greedy_logits(
    runner: Runner, prompt: Sequence[int], follow: Sequence[int]
) -> list[torch.Tensor]:
    """The logits [V] after `prompt`, then after each token of `follow`."""
    runner.reset()
    rows = [forward_in_parts(runner, torch.tensor([list(prompt)]), 0)]
    for i, token in enumerate(follow):
        rows.append(runner.forward(torch.tensor([[token]]), torch.tensor([len(prompt) + i])))
    return [row.reshape(-1, row.shape[-1])[-1].float() for row in rows]


@torch.inference_mode()
def continue_greedily(
    backbone: Backbone, prompt: Sequence[int], count: int
) -> tuple[list[int], list[torch.Tensor]]:
    """`count` tokens that `backbone` finds most likely, of those that its embedding has a row for
    and as that row, and the logits [V] of each."""
    kept = backbone.config.input_prune_map
    ids = list(kept.values()) if kept else slice(None)
    rows = greedy_logits(backbone, prompt, [])
    tokens = [int(rows[0][ids].argmax())]
    while len(tokens) < count:
        at = torch.tensor([len(prompt) + len(tokens) - 1])
        rows.append(backbone.forward(torch.tensor([[tokens[-1]]]), at).reshape(-1).float())
        tokens.append(int(rows[-1][ids].argmax()))
    return tokens, rows


class EagerLogits:
    """What the eager backbone makes of each prompt of `texts`: the tokens that follow it greedily,
    all but the last, the logits [V] of each step, and by layer the experts that are picked, bool
    [experts]. `advance` is called with the completed fraction."""

    def __init__(
        self,
        backbone: Backbone,
        texts: list[list[int]],
        new_tokens: int,
        advance: Callable[[float], None],
    ):
        self.texts = texts
        self.follows: list[list[int]] = []
        self.logits: list[list[torch.Tensor]] = []
        with _watched_experts(backbone) as self.picked:
            for text in texts:
                tokens, rows = continue_greedily(backbone, text, new_tokens)
                self.follows.append(tokens[:-1])
                self.logits.append(rows)
                advance(len(self.logits) / len(texts))

    def followed_by(
        self, runner: Runner, advance: Callable[[float], None]
    ) -> list[list[torch.Tensor]]:
        """The logits of `runner` for the same tokens; `advance` is called with the completed
        fraction. Raises `InputError` if they are of another vocabulary."""
        found = []
        size = len(self.logits[0][0])
        for prompt, follow in zip(self.texts, self.follows, strict=True):
            found.append(greedy_logits(runner, prompt, follow))
            if len(found[-1][0]) != size:
                raise InputError(
                    f"the program gives logits of {len(found[-1][0])} tokens, its checkpoint of "
                    f"{size}: it is damaged, or another model's; export it again"
                )
            advance(len(found) / len(self.texts))
        return found


def compare_logits(expected: list[list[torch.Tensor]], found: list[list[torch.Tensor]]) -> Parity:
    """`expected` and `found`: per prompt, the logits [V] of each step."""
    pairs = [
        list(zip(wants, gots, strict=True)) for wants, gots in zip(expected, found, strict=True)
    ]
    flat = [_without_infinities(*pair) for prompt in pairs for pair in prompt]
    same = [[bool(w.argmax() == g.argmax()) for w, g in prompt] for prompt in pairs]
    parted = [agree.index(False) for agree in same if False in agree]
    return Parity(
        logits_error=max(relative_error(got, want) for want, got in flat),
        top1_agreement=sum(map(sum, same)) / len(flat),
        kl=sum(divergence(want, got) for want, got in flat) / len(flat),
        first_difference=min(parted, default=None),
    )


def _without_infinities(
    expected: torch.Tensor, found: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both logits [V] without those of -inf, the tokens that an output layer has no row for; as
    they are where one has others of those. In float16 ExecuTorch writes the least number instead.
    """
    rest, least = expected != -torch.inf, torch.finfo(torch.float16).min
    return (expected[rest], found[rest]) if rest.equal(found > least) else (expected, found)


def divergence(expected: torch.Tensor, found: torch.Tensor) -> float:
    """KL(expected || found) in nats, of the distributions with these logits [V]."""
    if not bool(torch.isfinite(found).all()):
        return math.inf
    want, got = F.log_softmax(expected.double(), -1), F.log_softmax(found.double(), -1)
    return float(kl_divergence(want, got).clamp(min=0))


def rounding_floor(
    backbone: Backbone,
    eager: EagerLogits,
    nudge: float,
    seed: int,
    advance: Callable[[float], None],
) -> Parity:
    """What the backbone's logits, those of `eager`, change by when its embedding changes by
    `nudge`, relatively, as drawn by `seed`. `advance` is called with the completed fraction.

    No runtime that rounds in another order can be asked to come closer. In 8da4w it is large:
    a value at a rounding boundary becomes another int8, and later layers amplify that.
    """
    with nudged_embedding(backbone, nudge, seed):
        found = eager.followed_by(backbone, advance)
    return compare_logits(eager.logits, found)


@contextmanager
def nudged_embedding(backbone: Backbone, nudge: float, seed: int) -> Iterator[None]:
    """What the embedding of `backbone` gives changes by `nudge`, relatively, as drawn by `seed`."""
    generator = torch.Generator().manual_seed(seed)

    def shake(_module: object, _given: object, result: torch.Tensor) -> torch.Tensor:
        return result * (1 + nudge * torch.randn(result.shape, generator=generator))

    assert backbone.tok_embeddings is not None
    handle = backbone.tok_embeddings.register_forward_hook(shake)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _watched_experts(backbone: Backbone) -> Iterator[dict[int, torch.Tensor]]:
    """By layer with a mixture, which of its experts are picked for a token while this lasts, bool
    [experts]."""
    picked, handles = dict[int, torch.Tensor](), []
    for layer, block in enumerate(backbone.layers):
        for mixture in block.modules():
            if isinstance(mixture, MixtureOfExperts):
                picked[layer] = torch.zeros(len(mixture.experts), dtype=torch.bool)
                note = partial(_note, picked[layer])
                handles.append(mixture.register_forward_hook(note))
    try:
        yield picked
    finally:
        for handle in handles:
            handle.remove()


def _note(picked: torch.Tensor, mixture: nn.Module, given: tuple, _result: torch.Tensor) -> None:
    assert isinstance(mixture, MixtureOfExperts)
    picked |= (mixture.scores(given[0]) > 0).flatten(0, -2).any(0)
