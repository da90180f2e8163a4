"""The gated delta rule (Yang et al., 2024, "Gated Delta Networks", sections 2.2 and 3.1).

A head has a state S [d_k, d_v]. Each token lets it decay, and then puts a value in place of what it
answers to a key: S = exp(g) S, S = S + k (beta (v - S'k))', and reads S'q. The tokens of a call are
done at once, by matrix products. Without the correction, S = S + k (beta v)', it is the state space
of Mamba-2 (Dao and Gu, 2024, "Transformers are SSMs", section 6).
"""

from typing import NamedTuple

import torch
from torch import nn

# Tokens at once: matrices of as many rows and columns for each head, and their inverses.
CHUNK = 64


class DeltaRule(nn.Module):
    """The rule over the tokens of a call, from the state in which the one before ended.

    The buffer `recurrent_state` [texts, heads, d_k, d_v] float32 is the state after the last call;
    a text begins at position 0 with zeros. `corrects`: whether a value takes the place of what its
    key reads, and is not added to it. `one_key`: whether all heads have the same queries and keys.
    """

    recurrent_state: torch.Tensor
    corrects = True

    def __init__(self, heads: int, key_dim: int, value_dim: int, *, one_key: bool = False) -> None:
        super().__init__()
        self.one_key = one_key
        # On the CPU even if the module is built on the meta device: never loaded.
        state = torch.zeros(1, heads, key_dim, value_dim, device="cpu")
        self.register_buffer("recurrent_state", state, persistent=False)

    def forward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        log_decay: torch.Tensor,
        strength: torch.Tensor,
        start: int,
    ) -> torch.Tensor:
        """q, k [B, T, heads, d_k] (of 1 head with `one_key`), v [B, T, heads, d_v]; g `log_decay`
        and beta `strength` [B, T, heads]; tokens at positions `start` onwards; returns [B, T,
        heads, d_v]."""
        texts, _, heads, _ = v.shape
        state = self.recurrent_state
        if not start:
            state = state.new_zeros(texts, *state.shape[1:])
        state = state.flatten(0, 1)
        gates = log_decay.unsqueeze(-1), strength.unsqueeze(-1)
        q, k = (each.expand(-1, -1, heads, -1) for each in (q, k))
        inputs = [_by_head(each).float() for each in (q, k, v, *gates)]
        read = []
        chunks = zip(*(each.split(CHUNK, dim=1) for each in inputs), strict=True)
        for queries, keys, values, decays, strengths in chunks:
            masks = call_masks(queries.shape[1])
            tokens = queries, keys, values, decays, strengths
            part, state = delta_rule(*tokens, state, masks, self.corrects)
            read.append(part)
        self.recurrent_state = state.detach().unflatten(0, (texts, heads))
        by_head = torch.cat(read, dim=1).to(v.dtype).unflatten(0, (texts, heads))
        return by_head.transpose(1, 2)


class StateSpace(DeltaRule):
    """The rule without the correction: a token adds its value, whatever its key reads."""

    corrects = False


def _by_head(x: torch.Tensor) -> torch.Tensor:
    """x [B, T, heads, d] as [B * heads, T, d]."""
    return x.transpose(1, 2).flatten(0, 1)


class CallMasks(NamedTuple):
    """Which of T tokens (rows) see which (columns), as ones and zeros [T, T].

    `own`: themselves; `before`: those before; `seen`: both. `blocks`: of all pairs of
    blocks of 1, 2, 4, ... tokens, what the second sees of the first.
    """

    own: torch.Tensor
    seen: torch.Tensor
    before: torch.Tensor
    blocks: list[torch.Tensor]


def call_masks(length: int) -> CallMasks:
    """The masks of a call of `length` tokens, float32."""
    rows, columns = torch.arange(length)[:, None], torch.arange(length)[None, :]
    blocks, size = [], 1
    while size < length:
        same_pair = rows // (2 * size) == columns // (2 * size)
        blocks.append((same_pair & (rows // size > columns // size)).float())
        size *= 2
    own, seen, before = columns == rows, columns <= rows, columns < rows
    return CallMasks(own.float(), seen.float(), before.float(), blocks)


def delta_rule(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    log_decay: torch.Tensor,
    strength: torch.Tensor,
    state: torch.Tensor,
    masks: CallMasks,
    corrects: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(what T tokens of N heads read, [N, T, d_v]; the state after them, [N, d_k, d_v])

    q, k [N, T, d_k] (or N = 1), v [N, T, d_v], log_decay and strength [N, T, 1], state as it was
    before. With D_ij the decay from token j to i and A = strict lower part of (beta k) k' D, what
    is written are U = (I + A)^-1 beta (v - exp(c) k S), c the sums of g (section 3.3 of the paper),
    or without `corrects` beta v.
    """
    decayed = masks.seen * log_decay.transpose(1, 2)  # row i: g of the tokens up to i
    # Sums of the g between, not differences of sums, which would cancel.
    between = torch.bmm(decayed, masks.before.expand_as(decayed))
    decay = torch.exp(between) * masks.seen
    from_start = torch.exp(decayed.sum(-1, keepdim=True))
    to_end = decay[:, -1:].transpose(1, 2)
    keys = k.transpose(1, 2)
    written = v * strength
    if corrects:
        written_keys = k * strength
        inverse = _inverse(torch.bmm(written_keys, keys) * decay, masks)
        written = torch.bmm(inverse, written - torch.bmm(written_keys * from_start, state))
    read = torch.bmm(q * from_start, state) + torch.bmm(torch.bmm(q, keys) * decay, written)
    after = state * from_start[:, -1:] + torch.bmm((k * to_end).transpose(1, 2), written)
    return read, after


def _inverse(a: torch.Tensor, masks: CallMasks) -> torch.Tensor:
    """(I + A)^-1 of the strict lower part A of `a` [N, T, T].

    Blocks of b on the diagonal are inverted already: of two, joined by M, the inverse X of both has
    -X M X beneath. (I - A)(I + A^2)(I + A^4)..., as many products, would overflow: powers of A grow
    beyond all bounds where keys are alike.
    """
    inverse = masks.own - a * masks.blocks[0] if masks.blocks else torch.ones_like(a)
    for mask in masks.blocks[1:]:
        inverse = inverse - torch.bmm(torch.bmm(inverse, a * mask), inverse)
    return inverse
