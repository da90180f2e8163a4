"""Rotary embedding and attention with a KV cache, as dispatches."""

import math
from dataclasses import dataclass

from quatrain.errors import InputError
from quatrain.runtime.wgpu.dispatches.dispatch import (
    Dispatch,
    Operand,
    Symbol,
    Traits,
    ceil_div,
    dispatch,
    per_row,
)

CHUNK = 64  # positions that one workgroup scores at a time
MOST_SPLITS = 64  # of the context in decode


@dataclass(frozen=True)
class Caches:
    """The values v [1, T, KV, D] to keep beside the keys, in `v_cache` [1, C, KV, D], and the
    position `start` of the first of both."""

    v: Operand
    v_cache: Operand
    start: int | Symbol


def rope(
    q: Operand, k: Operand, cosines: Operand, sines: Operand, q_out: Operand, k_out: Operand,
    table: int | Symbol = 0, halves: bool = False, caches: Caches | None = None,
) -> Dispatch:  # fmt: skip
    """Rotates q [1, T, H, D] and k [1, T, KV, D] into q_out and k_out.

    Interleaved pairs with tables [T, D/2] of these tokens; or, with `halves`, the Hugging Face
    pairs with whole tables [context, R <= D], read from row `table`. With `caches`, k_out is the
    cache of the keys.
    """
    _, tokens, heads, d = q.shape
    pairs = (heads + k.shape[2] * (2 if caches else 1)) * (d // 2)
    written = [q, k, cosines, sines, q_out, k_out] + ([caches.v, caches.v_cache] if caches else [])
    return per_row(
        "rope", written, (tokens, table, caches.start if caches else 0), pairs,
        T=q.dtype, D=d, Q_HEADS=heads, K_HEADS=k.shape[2], TABLE=cosines.dtype,
        HALVES=halves, R=cosines.shape[-1], CACHE=caches is not None,
    )  # fmt: skip


def cache_update(
    k: Operand, v: Operand, k_cache: Operand, v_cache: Operand, start: int | Symbol
) -> Dispatch:
    """Writes k and v [1, T, KV, D] into the caches [1, C, KV, D] from position `start`."""
    width = k.shape[2] * k.shape[3]
    return per_row(
        "cache_update", [k, v, k_cache, v_cache], (k.shape[1], start), width,
        T=k.dtype, WIDTH=width,
    )  # fmt: skip


def attention(
    q: Operand, k_cache: Operand, v_cache: Operand, y: Operand, parts: Operand,
    start: int | Symbol, traits: Traits, scale: float | None = None,
) -> list[Dispatch]:  # fmt: skip
    """Causal attention of q [1, T, H, D] over positions 0 .. start + T of the caches into y.

    For one token a long context is split among workgroups and joined by a second dispatch,
    through `parts` (see `parts_shape`); for more, each workgroup takes a tile of tokens.
    """
    _, tokens, heads, d = q.shape
    kv_heads = k_cache.shape[2]
    _check_heads(heads, kv_heads, d)
    split = tokens == 1
    span = _span(k_cache, traits)
    ratio = heads // kv_heads
    tile = 1 if split else max(1, 8 // ratio)
    constants = {
        "T": q.dtype, "D": d, "KV_HEADS": kv_heads, "RATIO": ratio, "TOKENS": tile, "SPLIT": split,
        "SCALE": 1 / math.sqrt(d) if scale is None else scale, "CHUNK": CHUNK,
        "SPREAD": traits.spread,
    }  # fmt: skip
    if not split:
        whole = k_cache.shape[1] + CHUNK
        return [
            dispatch(
                "attention", [q, k_cache, v_cache, y], (tokens, start, whole),
                lambda p: (kv_heads, ceil_div(p[0], tile), 1), **constants,
            )
        ]  # fmt: skip
    return [
        dispatch(
            "attention", [q, k_cache, v_cache, y, parts], (tokens, start, span),
            lambda p: (kv_heads, 1, ceil_div(p[0] + p[1], span)), **constants,
        ),
        dispatch(
            "attention_join", [parts, y], (tokens, start, span),
            lambda p: (ceil_div(p[0] * heads * d, 64) if p[0] + p[1] > span else 0, 1, 1),
            T=y.dtype, D=d, HEADS=heads, WORKGROUP=64,
        ),
    ]  # fmt: skip


def attention_in_half(
    q: Operand, k_cache: Operand, v_cache: Operand, y: Operand, start: int | Symbol,
    scale: float | None,
) -> Dispatch:  # fmt: skip
    """As `attention`, of float16 and summed in it."""
    _, tokens, heads, d = q.shape
    kv_heads = k_cache.shape[2]
    _check_heads(heads, kv_heads, d)
    return dispatch(
        "attention_half", [q, k_cache, v_cache, y], (tokens, start),
        lambda p: (heads, p[0], 1),
        T="f16", D=d, KV_HEADS=kv_heads, RATIO=heads // kv_heads, HALF=True,
        SCALE=1 / math.sqrt(d) if scale is None else scale, WORKGROUP=64,
    )  # fmt: skip


def _check_heads(heads: int, kv_heads: int, d: int) -> None:
    if heads % kv_heads or d % 8:
        raise InputError(
            f"attention with {heads} heads over {kv_heads} KV heads of {d} dimensions: the GPU "
            "kernel needs a whole number of heads per KV head and a multiple of 8 dimensions. "
            "Run it with --device reference."
        )


def parts_shape(q: Operand, k_cache: Operand, traits: Traits) -> tuple[int, ...]:
    """The shape of the f32 operand that `attention` needs between its two dispatches."""
    _, tokens, heads, d = q.shape
    splits = ceil_div(k_cache.shape[1], _span(k_cache, traits)) if tokens == 1 else 0
    return (splits, tokens * heads, d + 2)


def _span(k_cache: Operand, traits: Traits) -> int:
    """Positions per split: one chunk, so that few KV heads still fill a GPU, or several on the
    few cores of a CPU; more where that makes more splits than are quick to join."""
    chunks = ceil_div(k_cache.shape[1], CHUNK * MOST_SPLITS)
    return CHUNK * max(4 if traits.cpu else 1, chunks)
