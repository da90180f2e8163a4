"""Attention as the phone's runtime computes it for prompts in float16 whose tensors are buffers.

There both of its products are summed in float16, one term after the other: the weights of a long
context are so small beside what is summed already that rounding takes or doubles them. Sources:
`sdpa_compute_attn_weights_tiled.glsl`, `sdpa_attn_weights_softmax.glsl` and
`sdpa_compute_out_tiled.glsl` of ExecuTorch 1.1 to 1.5. A call of one token shares the sum out
among 64 workers, and one in textures sums in float32.
"""

import math

import torch

from quatrain.runtime.reference.attention import custom_sdpa, update_cache
from quatrain.runtime.reference.half_products import summed


def sdpa_with_kv_cache_in_half(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, k_cache: torch.Tensor,
    v_cache: torch.Tensor, start_pos: int, attn_mask: torch.Tensor | None, is_causal: bool | None,
    scale: float | None,
) -> torch.Tensor:  # fmt: skip
    """As `attention.sdpa_with_kv_cache`, in float16."""
    update_cache(k, k_cache, start_pos)
    update_cache(v, v_cache, start_pos)
    return custom_sdpa_in_half(q, k_cache, v_cache, start_pos, attn_mask, is_causal, scale)


def custom_sdpa_in_half(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, start_pos: int,
    attn_mask: torch.Tensor | None, is_causal: bool | None, scale: float | None,
) -> torch.Tensor:  # fmt: skip
    """As `attention.custom_sdpa`, in float16; a mask, which the phone refuses, in float32."""
    if q.shape[1] == 1 or attn_mask is not None:
        return custom_sdpa(q, k, v, start_pos, attn_mask, is_causal, scale)
    total, group = start_pos + q.shape[1], q.shape[2] // k.shape[2]
    scale = scale if scale is not None else 1 / math.sqrt(q.shape[-1])
    heads = []
    for head in range(k.shape[2]):
        queries = q[0, :, head * group : (head + 1) * group].transpose(0, 1)  # [G, T, D]
        keys, values = (cache[0, :total, head] for cache in (k, v))  # [C, D]
        scores = summed(queries, keys.t()) * torch.tensor(scale, dtype=torch.float16)
        if is_causal is not False:
            later = torch.ones(scores.shape[1:], dtype=torch.bool).triu(start_pos + 1)
            scores.masked_fill_(later, -math.inf)
        heads.append(summed(_softmax(scores), values))
    return torch.cat(heads).transpose(0, 1)[None]


def _softmax(scores: torch.Tensor) -> torch.Tensor:
    """Over the last dimension, exponentials and quotients in float16; many workers share the sum,
    which is taken in float32 here."""
    powers = (scores - scores.amax(-1, keepdim=True)).exp()
    return powers / powers.sum(-1, keepdim=True, dtype=torch.float32).half()


HALF_ATTENTION = {
    "sdpa_with_kv_cache": sdpa_with_kv_cache_in_half,
    "custom_sdpa": custom_sdpa_in_half,
}
