"""How a checkpoint is trained, on a processor and on a GPU."""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Recipe:
    """`steps` of `texts` each, of which `at_once` are computed together.

    The rates of Adam rise over `warm` steps and fall to nothing (cosine). `scale_rate` and
    `vector_rate` are of the logarithms of the factors of scales and of vectors: at 0.002 SmolLM2's
    perplexity improved within 20 steps, and its divergence grew. `integer_rate` is of the integers
    in units of one, by the straight-through estimator (Bengio et al., 2013); 0 does not train them.
    `written`: the number of tokens that the model first generates, as continuations of pieces of
    the calibration text; 0 trains only on that text.
    """

    steps: int = 240
    texts: int = 4
    at_once: int = 1
    scale_rate: float = 5e-4
    vector_rate: float = 5e-4
    integer_rate: float = 0.0
    warm: int = 10
    written: int = 0

    def rate(self, step: int) -> float:
        """Of the highest, at that step."""
        return min(1.0, (step + 1) / self.warm) * 0.5 * (1 + math.cos(math.pi * step / self.steps))


ON_PROCESSOR = Recipe()
# Thirty times the tokens, so that integers can be trained too: with only the calibration text they
# would overfit.
ON_GPU = Recipe(steps=1000, texts=32, at_once=32, integer_rate=5e-3, warm=30, written=1 << 21)


def recipe_on(device: torch.device, writes: bool) -> Recipe:
    """The recipe that a device has time for, for a model that `writes` texts or does not."""
    return ON_GPU if device.type != "cpu" and writes else ON_PROCESSOR
