"""Attention to a window over a ring of keys and values, as ExecuTorch's CPU operators.

The ring has room for a window and for the longest call, which so overwrites nothing that its first
token still attends to. ExecuTorch's own exporter has two windows, and calls of one.
"""

import torch
from torch import nn

from quatrain.backbone.layers.kv_cache import CachedAttention
from quatrain.backbone.model import Backbone

LEAST_CALL = 512  # tokens of a call even if the window is smaller, so that a prompt takes few calls


def longest_call_of(window: int, chunk: int | None) -> int:
    """The tokens of the longest call where a layer keeps `window` of them in a ring: `chunk` where
    that is asked for."""
    return chunk or max(window, LEAST_CALL)


def ring_window(attend: CachedAttention, chunk: int | None) -> int | None:
    """The window of a layer that keeps its keys in a ring; None if it keeps the whole context:
    without a window, where a ring would be as large, and where there is a soft cap, or sinks, or
    other layers read its keys. `chunk`: of `longest_call_of`."""
    if attend.attention_window is None or attend.changes_scores or attend.shares_kv:
        return None
    kind, size = attend.attention_window
    saves = attend.attention_sinks + size + longest_call_of(size, chunk) < attend.k_cache.shape[1]
    return size if kind == "window" and saves else None


def keeps_rings(backbone: Backbone) -> bool:
    """Whether a layer of `backbone`, whose parts are CPU operators already, has a ring."""
    return any(isinstance(part, RingSdpa) for part in backbone.modules())


def longest_call(backbone: Backbone) -> int:
    """The tokens of the longest call of the XNNPACK program of `backbone`, whose parts are CPU
    operators already: what is asked for, or the smallest ring has room for, else the context."""
    config = backbone.config
    rings = [part for part in backbone.modules() if isinstance(part, RingPlaces)]
    most = config.prefill_chunk_size or config.max_seq_len
    return min([config.max_seq_len, most, *(places.longest_call for places in rings)])


class _LastCall:
    """What a `RingPlaces` was last asked for, and gave."""

    start: int | None = None
    length: int | None = None
    given: tuple[torch.Tensor, torch.Tensor] = (torch.empty(0), torch.empty(0))


class RingPlaces(nn.Module):
    """Where a ring keeps which position, for all layers of one window.

    It has room for calls of `longest_call` tokens. The first `sinks` slots keep the first
    positions; position p after these is in slot `sinks + (p - sinks) % size`.
    """

    def __init__(self, window: int, sinks: int, longest_call: int) -> None:
        super().__init__()
        self.window, self.sinks, self.longest_call = window, sinks, longest_call
        self.size = window + longest_call
        self._last = _LastCall()

    def forward(self, start: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Of a call of `length` tokens from position `start` on: their slots int64 [1, length],
        and what is added to scores, float32 [length, slots]: 0 where a token sees a slot, -inf
        elsewhere."""
        last = self._last
        # All layers ask with the same start, which is one symbolic number while they are traced, so
        # the first layer's answer holds for all.
        if last.start is not start or last.length != length:
            last.start, last.length, last.given = start, length, self._slots_and_mask(start, length)
        return last.given

    def _slots_and_mask(self, start: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = start + torch.arange(length)
        turned = torch.remainder(tokens - self.sinks, self.size) + self.sinks
        written = torch.where(tokens < self.sinks, tokens, turned)
        # The latest position of each slot, after the call's tokens are written.
        last = tokens[-1:]
        slots = torch.arange(self.sinks + self.size)
        is_sink = slots < self.sinks
        held = last - torch.remainder(last - slots, self.size)
        held = torch.where(is_sink, slots, held)
        filled = torch.logical_or(is_sink, held >= self.sinks)
        near = torch.logical_or(is_sink, held > tokens[:, None] - self.window)
        seen = torch.logical_and(torch.logical_and(filled, near), held <= tokens[:, None])
        return written.unsqueeze(0), torch.where(seen, 0.0, -torch.inf)


class RingSdpa(nn.Module):
    """`CachedAttention` of a window, as `llama::custom_sdpa` with a mask.

    Its caches [1, sinks + size of the ring, n_kv_heads, head_dim] hold the last positions, so that
    calls follow on each other, or begin a text at position 0.
    """

    k_cache: torch.Tensor
    v_cache: torch.Tensor

    def __init__(self, attend: CachedAttention, places: RingPlaces) -> None:
        super().__init__()
        self.places = places
        for name in ("k_cache", "v_cache"):
            cache = getattr(attend, name)[:, : places.sinks + places.size]
            self.register_buffer(name, cache.clone())

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, start: int
    ) -> torch.Tensor:
        """As of `CachedAttention`."""
        written, added = self.places(start, q.shape[1])
        for new, cache in ((k, self.k_cache), (v, self.v_cache)):
            torch.ops.llama.update_cache_with_indices.default(new, cache, 0, written)
        # With a mask the position counts for nothing.
        return torch.ops.llama.custom_sdpa.default(
            q, self.k_cache, self.v_cache, 0, added, 0.0, False, None
        )
