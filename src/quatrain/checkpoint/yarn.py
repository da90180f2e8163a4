"""YaRN (Peng et al., 2023, sections 3.2 and 3.4): a rotary embedding for a longer context, as a
divisor for the frequency of each plane and one factor on both tables.

It is the same at every length, so a params.json holds it as a LongRoPE whose short and long
divisors are equal. Figures that are left out are those of the paper, as in transformers and
llama.cpp.
"""

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Yarn:
    """`rotated`: channels of a head that turn; `theta`: the frequencies' base; `factor`: how many
    times as long the context became; `original_context`: the tokens of pretraining. Planes that
    turn more than `beta_fast` times in that context keep their frequency, those that turn less
    than `beta_slow` times are divided by the factor. `truncate`: whether those bounds are whole
    planes."""

    rotated: int
    theta: float
    factor: float
    original_context: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True

    def params(self, attention_factor: float | None = None) -> dict[str, Any]:
        """Fields of params.json. `attention_factor`: on both tables; None for the paper's."""
        divisors = self._divisors()
        return {
            "rope_scaling_short_factor": divisors,
            "rope_scaling_long_factor": divisors,
            "rope_scaling_attention_factor": attention_factor or attention_scale(self.factor),
            "original_max_position_embeddings": self.original_context,
        }

    def _divisors(self) -> list[float]:
        low, high = self._plane(self.beta_fast), self._plane(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, self.rotated - 1)
        width = high - low or 0.001
        slowed = (min(max((i - low) / width, 0.0), 1.0) for i in range(self.rotated // 2))
        return [1 / (part / self.factor + (1 - part)) for part in slowed]

    def _plane(self, turns: float) -> float:
        """The plane, counted as a fraction, that turns so often in the original context."""
        wavelengths = self.original_context / (turns * 2 * math.pi)
        return self.rotated * math.log(wavelengths) / (2 * math.log(self.theta))


def attention_scale(factor: float, weight: float = 1.0) -> float:
    """What the paper multiplies both tables by for a context `factor` times as long; DeepSeek
    gives the logarithm a `weight`."""
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0
