"""Rotary embedding and attention over the KV cache."""

import torch
import torch.nn.functional as F

from quatrain.runtime.calls.order import check_positions


def apply_rotary_emb(
    xq: torch.Tensor, xk: torch.Tensor, freqs_cos: torch.Tensor, freqs_sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate neighbouring pairs (Meta's order). xq, xk [B, T, H, D]; freqs [T, D/2]."""
    cos, sin = freqs_cos.float()[:, None, :], freqs_sin.float()[:, None, :]
    return _rotate_pairs(xq, cos, sin), _rotate_pairs(xk, cos, sin)


def _rotate_pairs(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    real, imaginary = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    rotated = (real * cos - imaginary * sin, real * sin + imaginary * cos)
    return torch.stack(rotated, dim=-1).flatten(-2)


def apply_rotary_emb_interleaved(x: torch.Tensor, freqs_cis: torch.Tensor) -> torch.Tensor:
    """Rotate neighbouring pairs of x [B, N, C] by freqs_cis, N * C / 2 pairs of (cos, sin)."""
    cos, sin = freqs_cis.float().reshape(x.shape[1], -1, 2).unbind(-1)
    return _rotate_pairs(x, cos, sin)


def apply_rotary_emb_hf(
    xq: torch.Tensor,
    xk: torch.Tensor,
    freqs_cos: torch.Tensor,
    freqs_sin: torch.Tensor,
    start_pos: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate halves (Hugging Face's order). freqs [context, R], R <= D rotated channels, of which a
    phone reads the first half for both (`rotary_embedding_hf.glsl` of ExecuTorch 1.5)."""
    check_positions(start_pos, start_pos + xq.shape[1], freqs_cos.shape[0])
    positions, half = slice(start_pos, start_pos + xq.shape[1]), freqs_cos.shape[-1] // 2
    cos, sin = (
        table[positions, :half].float().repeat(1, 2)[:, None, :] for table in (freqs_cos, freqs_sin)
    )
    return _rotate_halves(xq, cos, sin), _rotate_halves(xk, cos, sin)


def _rotate_halves(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    rotated, rest = x.float().split([cos.shape[-1], x.shape[-1] - cos.shape[-1]], dim=-1)
    first, second = rotated.chunk(2, dim=-1)
    turned = rotated * cos + torch.cat((-second, first), dim=-1) * sin
    return torch.cat((turned, rest), dim=-1)


def update_cache(value: torch.Tensor, cache: torch.Tensor, start_pos: int) -> torch.Tensor:
    """Write value [..., T, H, D] into cache [..., context, H, D] at `start_pos`; the cache."""
    end = start_pos + value.shape[-3]
    check_positions(start_pos, end, cache.shape[-3])
    cache[..., start_pos:end, :, :] = value
    return cache


def sdpa_with_kv_cache(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    start_pos: int,
    attn_mask: torch.Tensor | None,
    is_causal: bool | None,
    scale: float | None,
) -> torch.Tensor:
    """Append k, v to their caches and attend to all up to here.

    q [B, T, H, D]; k, v [B, T, Hkv, D]; caches [B, context, Hkv, D]; -> [B, T, H, D].
    """
    update_cache(k, k_cache, start_pos)
    update_cache(v, v_cache, start_pos)
    return custom_sdpa(q, k_cache, v_cache, start_pos, attn_mask, is_causal, scale)


def custom_sdpa(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    start_pos: int,
    attn_mask: torch.Tensor | None,
    is_causal: bool | None,
    scale: float | None,
) -> torch.Tensor:
    """Grouped-query attention of q [B, T, H, D] over the first start_pos + T rows of the caches
    k, v [B, context, Hkv, D]; causal unless that is denied, as on the phone."""
    length, total = q.shape[1], start_pos + q.shape[1]
    # [B, H, T, D] for torch; each key and value head serves H / Hkv query heads.
    keys, values = (cache[:, :total].transpose(1, 2).float() for cache in (k, v))
    mask = None
    if attn_mask is not None:
        mask = attn_mask[..., start_pos : start_pos + length, :total].float()
    elif is_causal is not False and length > 1:
        mask = torch.ones(length, total, dtype=torch.bool).tril(diagonal=start_pos)
    attended = F.scaled_dot_product_attention(
        q.transpose(1, 2).float(), keys, values, attn_mask=mask, scale=scale, enable_gqa=True
    )
    return attended.transpose(1, 2)


def sdpa(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    attn_mask: torch.Tensor | None,
    scale: float | None,
) -> torch.Tensor:
    """Attention of q, k, v [B, H, T, D], with an additive mask if there is one."""
    mask = None if attn_mask is None else attn_mask.float()
    return F.scaled_dot_product_attention(
        q.float(), k.float(), v.float(), attn_mask=mask, scale=scale
    )


ATTENTION_KERNELS = {
    "et_vk.apply_rotary_emb": apply_rotary_emb,
    "et_vk.apply_rotary_emb_hf": apply_rotary_emb_hf,
    "et_vk.apply_rotary_emb_interleaved": apply_rotary_emb_interleaved,
    "et_vk.sdpa": sdpa,
    "sdpa_with_kv_cache": sdpa_with_kv_cache,
    "custom_sdpa": custom_sdpa,
    "update_cache": update_cache,
}
