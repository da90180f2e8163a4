"""The gated delta rule, and a state space, as Vulkan operators: the matrix products of `delta_rule`
for one chunk, of one size in every call."""

import torch
from torch import nn

from quatrain.backbone.layers.delta_rule import CallMasks, DeltaRule, call_masks, delta_rule
from quatrain.export.operators.short_conv import goes_on

# Tokens of a call at most. A step computes as many too; a longer prompt reads the weights again.
CHUNK = 16


class Chunk(nn.Module):
    """What the rules of a backbone share: `call_masks` of a chunk, and zeros in place of tokens
    [1, CHUNK, heads, ...] and of a state [heads, d_k, d_v]."""

    no_keys: torch.Tensor
    no_values: torch.Tensor
    no_gates: torch.Tensor
    no_state: torch.Tensor

    def __init__(self, rule: DeltaRule) -> None:
        super().__init__()
        masks = call_masks(CHUNK)
        for name in ("own", "seen", "before"):
            self.register_buffer(name, getattr(masks, name))
        self.pairs = [f"block_{index}" for index in range(len(masks.blocks))]
        for name, mask in zip(self.pairs, masks.blocks, strict=True):
            self.register_buffer(name, mask)
        state = rule.recurrent_state[0]
        heads, key_dim, value_dim = state.shape
        key_heads = 1 if rule.one_key else heads
        self.register_buffer("no_state", torch.zeros_like(state))
        self.register_buffer("no_keys", torch.zeros(1, CHUNK, key_heads, key_dim))
        self.register_buffer("no_values", torch.zeros(1, CHUNK, heads, value_dim))
        self.register_buffer("no_gates", torch.zeros(1, CHUNK, heads))

    def masks(self) -> CallMasks:
        """The buffers as what a call's rows may see of one another."""
        own, seen, before = (self.get_buffer(name) for name in ("own", "seen", "before"))
        return CallMasks(own, seen, before, [self.get_buffer(name) for name in self.pairs])


class ChunkedDeltaRule(nn.Module):
    """`DeltaRule` over the up to `CHUNK` tokens of a call.

    A shorter call is padded to a chunk by tokens that write nothing and cause no decay. So the
    number of columns of a matrix never depends on the call: if it is not a multiple of 4, the
    runtime's matrix products multiply the padding of the last texel by 0, which after a transpose
    is uninitialized memory and may be NaN.

    The state [1, heads, d_k, d_v] is written by each call; at position 0 zeros are read instead.
    """

    recurrent_state: torch.Tensor

    def __init__(self, rule: DeltaRule, chunk: Chunk, context: int) -> None:
        super().__init__()
        self.chunk, self.context, self.corrects = chunk, context, rule.corrects
        self.register_buffer("recurrent_state", torch.zeros_like(rule.recurrent_state))

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
        _, length, heads, _ = v.shape
        chunk = self.chunk
        either = torch.cat((chunk.no_state, self.recurrent_state.squeeze(0)), dim=0)
        state = either.narrow(0, goes_on(start, self.context) * heads, heads)
        read, after = delta_rule(
            _by_head(_padded(q, chunk.no_keys)),
            _by_head(_padded(k, chunk.no_keys)),
            _by_head(_padded(v, chunk.no_values)),
            _padded(log_decay, chunk.no_gates).permute(2, 1, 0),
            _padded(strength, chunk.no_gates).permute(2, 1, 0),
            state,
            chunk.masks(),
            self.corrects,
        )
        # Of equal shapes it copies the one into the other, whatever their dimensions mean.
        torch.ops.llama.update_cache.default(after.unsqueeze(0), self.recurrent_state, 0)
        return read.transpose(0, 1).unsqueeze(0).narrow(1, 0, length)


def _padded(tokens: torch.Tensor, nothing: torch.Tensor) -> torch.Tensor:
    """`tokens` [1, T, ...] and so much of `nothing` [1, CHUNK, ...] that there are `CHUNK`."""
    return torch.cat((tokens, nothing), dim=1).narrow(1, 0, CHUNK)


def _by_head(chunk: torch.Tensor) -> torch.Tensor:
    """`chunk` [1, CHUNK, heads, d] as [heads, CHUNK, d]."""
    return chunk.squeeze(0).transpose(0, 1)
