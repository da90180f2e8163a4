"""Logits one decode step at a time: what faster ways of getting them are compared with."""

from collections.abc import Sequence

import torch

from quatrain.runtime.runner import Runner


@torch.inference_mode()
def step_logits(runner: Runner, tokens: Sequence[int]) -> torch.Tensor:
    """The logits after each of `tokens`, float32 [T, vocab_size], one decode step a token."""
    runner.reset()
    rows = [
        runner.forward(torch.tensor([[token]]), torch.tensor([position])).reshape(-1).float()
        for position, token in enumerate(tokens)
    ]
    return torch.stack(rows)
