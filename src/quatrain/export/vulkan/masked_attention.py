"""Attention with a window, a chunk, a soft cap or sinks, as Vulkan operators.

ExecuTorch's Vulkan operators that read a KV cache are causal over all of it, and do not accept a
mask (`sdpa_impl` of SDPA.cpp). `et_vk::sdpa` accepts one, but reads a mask in a buffer by rows of
whole texels (`apply_bias` of sdpa_fp_attn_weight_tile_store.glslh): wrong unless the number of keys
is a multiple of 4. So attention is written as matrix products, a mask and a softmax here.
"""

import torch
from torch import nn

from quatrain.backbone.layers.kv_cache import CachedAttention

# What is added to a score that is not to be seen: beyond any score, and exact in half precision.
HIDDEN = -30000.0

MaskKey = tuple[tuple[str, int] | None, tuple[int, int]]


class PositionMask(nn.Module):
    """The additive mask of attention, from the position, and the other numbers that its layers
    share: by what queries are scaled, and the soft cap.

    Rows are the G query heads of one KV head, token by token. Int32 tables: of each query
    position, G times, itself (`own`) and the first position that it attends to (`first`),
    [context, G]; and the positions of the keys, which with a window begin `before` tokens before
    the call's first. With sinks also `beside`, 0 for each query position, [context, G].
    """

    own: torch.Tensor
    first: torch.Tensor
    keys: torch.Tensor
    shown: torch.Tensor
    hidden: torch.Tensor
    scale: torch.Tensor
    cap: torch.Tensor | None
    beside: torch.Tensor | None

    def __init__(self, attend: CachedAttention, heads_per_key: int) -> None:
        super().__init__()
        window, context = attend.attention_window, attend.k_cache.shape[1]
        positions = torch.arange(context, dtype=torch.int32)
        first, self.before = torch.zeros_like(positions), 0
        if window is not None:
            kind, size = window
            self.before = max(1, size - 1)  # no tensor may be empty
            since = positions - (size - 1) if kind == "window" else positions // size * size
            first = since.clamp(min=0)
        repeated = (context, heads_per_key)
        self.register_buffer("own", positions[:, None].expand(repeated).contiguous())
        self.register_buffer("first", first[:, None].expand(repeated).contiguous())
        self.register_buffer("keys", torch.arange(-self.before, context, dtype=torch.int32))
        self.register_buffer("shown", torch.zeros(1))
        self.register_buffer("hidden", torch.full((1,), HIDDEN))
        cap = attend.soft_cap
        scale = attend.head_shape[1] ** -0.5 / (1.0 if cap is None else cap)
        self.register_buffer("scale", torch.tensor([scale]))
        self.register_buffer("cap", None if cap is None else torch.tensor([cap]))
        self.register_buffer("beside", None if attend.sinks is None else torch.zeros(repeated))

    def forward(self, start: int, length: int) -> torch.Tensor:
        """[length * G, L]: 0 where a query sees a key, `HIDDEN` elsewhere. L is `before` + length
        with a window, else the context."""
        own = self.own.narrow(0, start, length).reshape(-1, 1)
        first = self.first.narrow(0, start, length).reshape(-1, 1)
        keys = self.keys.narrow(0, start, self.before + length) if self.before else self.keys
        keys = keys.unsqueeze(0)
        seen = torch.logical_and(keys <= own, keys >= first)
        return torch.where(seen, self.shown, self.hidden)


class MaskedSdpa(nn.Module):
    """`CachedAttention` of a window, a chunk, a soft cap or sinks.

    With a window its caches [n_kv_heads, before, head_dim] hold the last keys and values before the
    call's, oldest first, and are written by each call: calls must be consecutive. Otherwise they
    are [context, n_kv_heads, head_dim].
    """

    k_cache: torch.Tensor
    v_cache: torch.Tensor
    sinks: torch.Tensor | None
    seen: tuple[torch.Tensor, torch.Tensor]

    def __init__(self, attend: CachedAttention, mask: PositionMask) -> None:
        super().__init__()
        self.mask = mask
        self.register_buffer("sinks", attend.sinks_by_key_head())
        for name in ("k_cache", "v_cache"):
            cache = getattr(attend, name)[0]
            if mask.before:
                _, heads, width = cache.shape
                cache = torch.zeros(heads, mask.before, width, dtype=cache.dtype)
            self.register_buffer(name, cache)

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, start: int
    ) -> torch.Tensor:
        # The keys of the call itself, because the cache may not hold them if the window has moved
        # on.
        self.seen = self._extended(k, self.k_cache, start), self._extended(v, self.v_cache, start)
        return self.read(q, start)

    def read(self, q: torch.Tensor, start: int) -> torch.Tensor:
        """Attention of another layer's queries over the keys and values of this one's call."""
        _, length, heads, width = q.shape
        keys, values = self.seen
        kv_heads = keys.shape[0]
        weights = self._weights(_rows(q, kv_heads), keys, start, length)
        attended = torch.bmm(weights, values)
        if kv_heads > 1:
            attended = attended.reshape(kv_heads, length, -1, width).transpose(0, 1)
        return attended.reshape(1, length, heads, width)

    def _extended(self, new: torch.Tensor, cache: torch.Tensor, start: int) -> torch.Tensor:
        """The keys or values that the call's queries may attend to, [n_kv_heads, L, head_dim]: the
        cache and `new` [1, T, n_kv_heads, head_dim], which is added to it."""
        if not self.mask.before:
            torch.ops.llama.update_cache.default(new[0], cache, start)
            return cache.transpose(0, 1)
        heads = new.shape[2]
        added = _rows(new, heads) if heads == 1 else new[0].transpose(0, 1)
        every = torch.cat((cache, added), dim=1)
        last = every.narrow(1, new.shape[1], self.mask.before)
        # Of equal shapes it copies the one into the other, whatever their dimensions mean.
        torch.ops.llama.update_cache.default(last, cache, 0)
        return every

    def _weights(
        self, queries: torch.Tensor, keys: torch.Tensor, start: int, length: int
    ) -> torch.Tensor:
        """The softmax [n_kv_heads, T * G, L] of the scores that are seen."""
        scores = torch.bmm(queries * self.mask.scale, keys.transpose(1, 2))
        if self.mask.cap is not None:
            scores = torch.tanh(scores) * self.mask.cap
        scores = scores + self.mask(start, length)
        if self.sinks is None:
            return torch.softmax(scores, dim=-1)
        assert self.mask.beside is not None
        sinks = self.sinks + self.mask.beside.narrow(0, start, length)
        beside = sinks.reshape(len(keys), -1, 1)
        weights = torch.softmax(torch.cat((scores, beside), dim=-1), dim=-1)
        return weights.narrow(2, 0, scores.shape[2])


def _rows(q: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """q [1, T, H, D] as [kv_heads, T * G, D]: the query heads that share a KV head are rows beside
    each other, so that keys need no copies."""
    width = q.shape[-1]
    if kv_heads == 1:
        return q.reshape(1, -1, width)
    grouped = q.reshape(q.shape[1], kv_heads, -1, width).transpose(0, 1)
    return grouped.reshape(kv_heads, -1, width)


def masks_for(parts: list[CachedAttention], n_heads: int) -> dict[MaskKey, PositionMask]:
    """The mask of each kind of `parts` that needs one, by its `mask_key`."""
    masks: dict[MaskKey, PositionMask] = {}
    for part in parts:
        key = mask_key(part)
        if (part.attention_window or part.changes_scores) and key not in masks:
            masks[key] = PositionMask(part, n_heads // part.head_shape[0])
    return masks


def mask_key(attend: CachedAttention) -> MaskKey:
    """What layers that share a mask have in common: their window, and the number and the width of
    their KV heads."""
    return attend.attention_window, attend.head_shape
