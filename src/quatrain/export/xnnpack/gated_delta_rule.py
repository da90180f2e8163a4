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
    """

    recurrent_state: torch.Tensor

    def __init__(self, rule: DeltaRule, context: int) -> None:
        super().__init__()
        self.context, self.corrects = context, rule.corrects
        state = rule.recurrent_state
        self.register_buffer("recurrent_state", torch.cat((state, state), dim=1))

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
        heads = v.shape[2]
        before = self.recurrent_state.narrow(1, goes_on(start, self.context) * heads, heads)
        if not self.corrects:
            k, v = k * _SMALLER, v * (1 / _SMALLER)
        by_head = [each.transpose(1, 2) for each in (q, k, v, torch.exp(log_decay), strength)]
        # Only now as many as heads: of each such tensor there is one in memory.
        by_head[:2] = (each.expand(-1, heads, -1, -1) for each in by_head[:2])
        read, after = torch.ops.llama.gated_delta_rule.default(*by_head, before)
        torch.ops.llama.update_cache.default(after, self.recurrent_state, heads)
        return read.transpose(1, 2)
