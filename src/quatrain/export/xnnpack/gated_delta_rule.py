"""The gated delta rule, and a state space, as the operator that ExecuTorch's CPU runtime has for
the first, from 1.5 on."""

import torch
from torch import nn

from quatrain.backbone.layers.delta_rule import DeltaRule
from quatrain.export.operators.short_conv import goes_on

# A key so much smaller and a value so much larger write the same, bit for bit, since it is a power
# of 2; what the operator takes from the value, what the key reads, is smaller by the square of it
# and rounded away. So it computes a state space, which takes nothing.
_SMALLER = 2.0**-30


class FusedDeltaRule(nn.Module):
    """`DeltaRule` as `llama::gated_delta_rule`, token by token in one operator.

    The buffer `recurrent_state` [1, 2 * heads, d_k, d_v] holds zeros, which are never written and
    which a text begins with, and behind them the state: to choose one of the two is one copy.
    Without the correction the buffers `smaller` and `larger` [1] are factors of keys and values.
    """

    recurrent_state: torch.Tensor
    smaller: torch.Tensor
    larger: torch.Tensor

    def __init__(self, rule: DeltaRule, context: int) -> None:
        super().__init__()
        self.context, self.corrects = context, rule.corrects
        state = rule.recurrent_state
        self.register_buffer("recurrent_state", torch.cat((state, state), dim=1))
        if not self.corrects:
            self.register_buffer("smaller", torch.tensor([_SMALLER], device="cpu"))
            self.register_buffer("larger", torch.tensor([1 / _SMALLER], device="cpu"))

    def forward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        log_decay: torch.Tensor,
        strength: torch.Tensor,
        start: int,
    ) -> torch.Tensor:
        """As `DeltaRule.forward`, of one text."""
        if not self.corrects:
            k, v = k * self.smaller, v * self.larger
        q, k, v = (each.transpose(1, 2) for each in (q, k, v))
        return self.by_head(q, k, v, log_decay, strength, start).transpose(1, 2)

    def by_head(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        log_decay: torch.Tensor,
        strength: torch.Tensor,
        start: int,
    ) -> torch.Tensor:
        """The same of q, k [1, heads, T, d_k], of a divisor of the heads, and v [1, heads, T, d_v];
        returns [1, heads, T, d_v]. Without the correction k is smaller and v larger."""
        heads = v.shape[1]
        before = self.recurrent_state.narrow(1, goes_on(start, self.context) * heads, heads)
        gates = (each.transpose(1, 2) for each in (torch.exp(log_decay), strength))
        # Only now as many as heads: of each such tensor there is one in memory.
        q, k = (_repeated(each, heads // each.shape[1]) for each in (q, k))
        read, after = torch.ops.llama.gated_delta_rule.default(q, k, v, *gates, before)
        torch.ops.llama.update_cache.default(after, self.recurrent_state, heads)
        return read


def _repeated(x: torch.Tensor, times: int) -> torch.Tensor:
    """x [1, heads, T, d], each head `times` times."""
    if times == 1:
        return x
    _, heads, length, width = x.shape
    several = x.unsqueeze(2).expand(-1, -1, times, -1, -1)
    return several.reshape(1, heads * times, length, width)
