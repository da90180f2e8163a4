"""What `verify` says that it did not compare."""

import torch
from torch import nn

from quatrain.verify.checks.not_compared import not_compared


def test_experts_of_many_layers_are_named_of_the_first() -> None:
    picked = {layer: torch.arange(8) % 8 != layer for layer in range(10)}
    _, said = not_compared((), nn.Module(), 8, False, picked)
    of_layers = "0 of layer 0; 1 of layer 1; 2 of layer 2; and some of 5 more layers"
    assert said.startswith(f"experts that no text is routed to, {of_layers}: ")
