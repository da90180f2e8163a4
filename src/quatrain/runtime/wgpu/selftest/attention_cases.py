"""Rotary embedding, cache update and attention, over shapes that break them."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from quatrain.runtime.wgpu.dispatches.attention import (
    Caches,
    attention,
    cache_update,
    parts_shape,
    rope,
)
from quatrain.runtime.wgpu.dispatches.dispatch import Operand, Traits
from quatrain.runtime.wgpu.selftest.bench import Bench, Case, Made

# (tokens, start, context, heads, KV heads, head_dim)
_SHAPES = [
    (1, 0, 8, 1, 1, 64),
    (1, 7, 8, 9, 3, 64),
    (1, 63, 128, 4, 4, 64),
    (1, 64, 128, 4, 2, 96),
    (1, 255, 600, 8, 1, 128),
    (1, 256, 600, 2, 1, 256),
    (1, 1500, 1600, 6, 2, 16),
    (3, 0, 16, 9, 3, 64),
    (8, 0, 16, 4, 4, 80),
    (9, 61, 80, 2, 2, 64),
    (65, 0, 65, 8, 1, 64),
    (66, 130, 200, 4, 1, 128),
    (5, 3, 8, 5, 5, 256),
    (1, 40, 64, 5, 1, 64),
    (2, 63, 80, 6, 1, 64),
    (1, 4095, 4096, 7, 1, 64),
    (1, 70, 80, 16, 1, 64),  # more heads per KV head than share their sums
    (3, 70, 80, 16, 1, 64),
    (2, 9, 16, 2, 1, 8),
    (1, 70, 80, 2, 1, 264),
]


def attention_cases(dtype: str) -> Iterator[Case]:
    """Both rotary embeddings; attention in prefill and decode, by broadcast and without."""
    for tokens, start, context, heads, kv, d in _SHAPES:
        shape = f"t{tokens}-s{start}-c{context}-h{heads}-kv{kv}-d{d}"
        make = partial(_attention, tokens, start, context, heads, kv, d)
        yield Case("sdpa_with_kv_cache", shape, dtype, make)
        if heads <= 4:
            make = partial(_attention, tokens, start, context, heads, kv, d, spread=False)
            yield Case("sdpa_with_kv_cache", f"{shape}-other", dtype, make)
    for tokens, heads, kv, d in [(1, 1, 1, 64), (3, 9, 3, 64), (65, 4, 1, 80), (2, 2, 2, 256)]:
        shape = f"t{tokens}-h{heads}-kv{kv}-d{d}"
        for start in (None, 0, 3):
            to = shape + ("" if start is None else f"-cache{start}")
            make = partial(_rope, tokens, heads, kv, d, start=start)
            yield Case("apply_rotary_emb", to, dtype, make)
            for rotated in (d, d // 2):
                make = partial(_rope_halves, tokens, heads, kv, d, rotated, start=start)
                yield Case("apply_rotary_emb_hf", f"{to}-r{rotated}", dtype, make)


def _attention(
    tokens: int, start: int, context: int, heads: int, kv: int, d: int, bench: Bench,
    spread: bool = True,
) -> Made:  # fmt: skip
    # Otherwise also with the splits of another kind of device.
    traits = bench.traits if spread else Traits(not bench.traits.cpu, spread=False)
    q = bench.normal("q", 1, tokens, heads, d)
    k = bench.normal("k", 1, tokens, kv, d)
    v = bench.normal("v", 1, tokens, kv, d)
    caches = {}
    for name in ("k_cache", "v_cache"):
        # What lies past the last token must not matter.
        filled = bench.rng.standard_normal((1, context, kv, d))
        filled[:, start:] = np.nan
        caches[name] = bench.put(name, filled)
    y = bench.out("y", 1, tokens, heads, d)
    parts = bench.out("parts", *parts_shape(q, caches["k_cache"], traits), dtype="f32")
    dispatches = [
        cache_update(k, v, caches["k_cache"], caches["v_cache"], start),
        *attention(q, caches["k_cache"], caches["v_cache"], y, parts, start, traits),
    ]
    keys = np.concatenate([bench["k_cache"][0, :start], bench["k"][0]])
    values = np.concatenate([bench["v_cache"][0, :start], bench["v"][0]])
    return dispatches, {"y": causal_attention(bench["q"][0], keys, values)[None]}


def causal_attention(q: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """q [T, H, D], keys and values [S, KV, D] with S >= T; the last query sees all of them."""
    ratio = q.shape[1] // keys.shape[1]
    keys, values = np.repeat(keys, ratio, axis=1), np.repeat(values, ratio, axis=1)
    scores = np.einsum("thd,shd->hts", q, keys) / np.sqrt(q.shape[-1])
    hidden = np.triu(np.ones(scores.shape[1:], bool), k=1 + keys.shape[0] - q.shape[0])
    scores[:, hidden] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("hts,shd->thd", weights, values)


def _rope(tokens: int, heads: int, kv: int, d: int, bench: Bench, start: int | None = None) -> Made:
    """With `start`, into a cache from that position on, the values beside the keys."""
    q = bench.normal("q", 1, tokens, heads, d)
    k = bench.normal("k", 1, tokens, kv, d)
    angles = bench.rng.uniform(-3, 3, (tokens, d // 2))
    cosines = bench.put("cos", np.cos(angles))
    sines = bench.put("sin", np.sin(angles))
    turn = bench["cos"] + 1j * bench["sin"]
    want = {}
    for name in ("q", "k"):
        pairs = bench[name][..., ::2] + 1j * bench[name][..., 1::2]
        turned = pairs * turn[:, None, :]
        want[f"{name}_out"] = np.stack([turned.real, turned.imag], -1).reshape(bench[name].shape)
    made, want = _outputs(bench, q, k, want, start)
    return [rope(q, k, cosines, sines, **made)], want


def _rope_halves(
    tokens: int, heads: int, kv: int, d: int, rotated: int, bench: Bench, start: int | None = None
) -> Made:
    table = 5
    q = bench.normal("q", 1, tokens, heads, d)
    k = bench.normal("k", 1, tokens, kv, d)
    cosines = bench.normal("cos", table + tokens + 2, rotated)
    sines = bench.normal("sin", table + tokens + 2, rotated)
    halves = (bench[n][table : table + tokens, None, : rotated // 2] for n in ("cos", "sin"))
    cos, sin = (np.tile(half, 2) for half in halves)  # the tables' other half is of no use
    want = {}
    for name in ("q", "k"):
        x, rest = bench[name][..., :rotated], bench[name][..., rotated:]
        swapped = np.concatenate([-x[..., rotated // 2 :], x[..., : rotated // 2]], -1)
        want[f"{name}_out"] = np.concatenate([x * cos + swapped * sin, rest], -1)
    made, want = _outputs(bench, q, k, want, start)
    return [rope(q, k, cosines, sines, **made, table=table, halves=True)], want


def _outputs(
    bench: Bench, q: Operand, k: Operand, want: dict[str, np.ndarray], start: int | None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The outputs of `rope`, and their expected values; other rows of a cache must not change."""
    outs = {"q_out": bench.out("q_out", *q.shape)}
    if start is None:
        return outs | {"k_out": bench.out("k_out", *k.shape)}, want
    _, tokens, kv, d = k.shape
    shape = (1, start + tokens + 1, kv, d)
    v = bench.normal("v", 1, tokens, kv, d)
    outs["k_out"] = bench.normal("k_out", *shape)
    v_cache = bench.normal("v_cache", *shape)
    for name, rows in (("k_out", want["k_out"]), ("v_cache", bench["v"])):
        want[name] = bench[name].copy()
        want[name][:, start : start + tokens] = rows
    return {**outs, "caches": Caches(v, v_cache, start)}, want
