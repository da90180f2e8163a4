"""Attention over a KV cache that the backbone keeps from call to call."""

import torch
import torch.nn.functional as F
from torch import nn

from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.layer_config import Layer
from quatrain.errors import InputError
from quatrain.linear.affine import fake_quantize_tokens

# The smallest scale of ExecuTorch's choose_qparams_per_token_asymmetric: float32's epsilon.
SMALLEST_SCALE = torch.finfo(torch.float32).eps


class CachedAttention(nn.Module):
    """Causal grouped-query attention of T new tokens over all tokens so far.

    Mutable buffers `k_cache` and `v_cache` [1, max_seq_len, n_kv_heads, head_dim] hold the
    keys and values of positions 0 .. start - 1 when called, 0 .. start + T - 1 afterwards.
    After `make_room` they, and all that is given, have several texts in place of 1.

    `sinks` [n_heads]: a score that each head's queries attend to besides, of no value.

    With `rounds_to_int8` (see `quantize_kv_cache`) queries, keys and values are those that int8
    holds of each token and head, asymmetric; the buffers stay floating point here.
    """

    k_cache: torch.Tensor
    v_cache: torch.Tensor

    def __init__(self, config: BackboneConfig, layer: Layer) -> None:
        super().__init__()
        self.attention_window = layer.attention_window
        self.attention_sinks = layer.attention_sinks
        self.shares_kv = layer.shares_kv
        self.values_are_keys = layer.latent
        self.soft_cap = config.attn_logit_softcapping
        self.changes_scores, self.sinks = config.changes_scores, None
        if config.use_sink_scores:
            self.sinks = nn.Parameter(torch.zeros(config.n_heads), requires_grad=False)
        self.head_shape = layer.n_kv_heads, layer.head_dim
        self.rounds_to_int8 = False
        for name in ("k_cache", "v_cache"):
            self.register_buffer(name, None, persistent=False)
        self.make_room(1, config.max_seq_len)

    def make_room(
        self,
        texts: int,
        length: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """Empty caches, for `texts` texts side by side of up to `length` tokens each."""
        for name in ("k_cache", "v_cache"):
            # On that device even if the module is built on the meta device: never loaded.
            shape = (texts, length, *self.head_shape)
            setattr(self, name, torch.zeros(shape, dtype=dtype, device=device))

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, start: int
    ) -> torch.Tensor:
        """q [1, T, n_heads, head_dim], k and v [1, T, n_kv_heads, head_dim], `start` the
        position of the first of the T tokens; returns [1, T, n_heads, head_dim]."""
        end = start + q.shape[1]
        if self.rounds_to_int8:
            q, k, v = (fake_quantize_tokens(heads, SMALLEST_SCALE) for heads in (q, k, v))
        self.k_cache[:, start:end] = k
        self.v_cache[:, start:end] = v
        return self.read(q, start)

    def sinks_by_key_head(self) -> torch.Tensor | None:
        """The sinks [n_kv_heads, 1, query heads of one], if there are any."""
        return None if self.sinks is None else self.sinks.detach().view(self.head_shape[0], 1, -1)

    def read(self, q: torch.Tensor, start: int) -> torch.Tensor:
        """The attention of q as in `forward`, over the current contents of the cache."""
        length = q.shape[1]
        end = start + length
        keys, values = self.k_cache[:, :end], self.v_cache[:, :end]
        mask = None
        windowed = self.attention_window is not None
        # Without a mask if a text begins: torch then leaves out what no token attends to.
        causal = start == 0 and length > 1 and not windowed and not self.changes_scores
        if windowed or (length > 1 and not causal):
            mask = visible(start, length, end, self.attention_window, self.attention_sinks)
        if self.changes_scores:
            texts = zip(q.split(1), keys.split(1), values.split(1), strict=True)
            changed = self.soft_cap, self.sinks_by_key_head()
            return torch.cat([attention_by_parts(*text, mask, *changed) for text in texts])
        # To [1, heads, tokens, head_dim], the layout of torch's attention, and back.
        attended = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            keys.transpose(1, 2),
            values.transpose(1, 2),
            attn_mask=mask,
            is_causal=causal,
            enable_gqa=True,
        )
        return attended.transpose(1, 2)


def cached_width(config: BackboneConfig) -> int:
    """The channels of a token's keys in all layers, and so of its values."""
    layers = (config.layer(index) for index in range(config.n_layers))
    return sum(layer.n_kv_heads * layer.head_dim for layer in layers)


def quantize_kv_cache(backbone: nn.Module) -> None:
    """Let every attention of `backbone` compute, in place, as over a KV cache of int8: each head of
    a token's query, key and value is rounded with a scale and a zero point of its own.

    That is what `llama::custom_quantized_sdpa` of ExecuTorch computes
    (`extension/llm/custom_ops/op_sdpa.cpp`): exact sums of int8 products, scaled, and a softmax
    in floating point over values that are dequantized.

    Raises:
        InputError: If a layer has a window, a soft cap, or keys that other layers read.
    """
    parts = [
        (name, part) for name, part in backbone.named_modules() if isinstance(part, CachedAttention)
    ]
    for name, part in parts:
        _require_plain(name.removesuffix(".attend"), part)
        part.rounds_to_int8 = True


def _require_plain(layer: str, attend: CachedAttention) -> None:
    window, remedy = attend.attention_window, "leave --kv-cache out"
    if window is not None:
        what = f"attends to a {window[0]} of {window[1]} tokens"
        remedy += f", or ask for a context that it covers: --max-seq-len {window[1]}"
    elif attend.soft_cap is not None:
        what = f"has a soft cap of {attend.soft_cap:g} on its scores"
    elif attend.sinks is not None:
        what = "has a learned sink for each head"
    elif attend.shares_kv:
        what = "hands its keys and values on to other layers"
    else:
        return
    raise InputError(
        f"{layer}: {what}, and --kv-cache int8 is for attention to the whole context that is a "
        f"layer's own; {remedy}"
    )


def visible(
    start: int,
    length: int,
    positions: int,
    attention_window: tuple[str, int] | None,
    attention_sinks: int = 0,
) -> torch.Tensor:
    """Which of the first `positions` (columns) each of the `length` tokens from `start` on
    (rows) attends to: bool [length, positions]. Window and sinks are as in `Layer`."""
    tokens = (start + torch.arange(length))[:, None]
    columns = torch.arange(positions)[None, :]
    mask = columns <= tokens
    if attention_window is None:
        return mask
    kind, size = attention_window
    if kind == "window":
        return mask & ((columns > tokens - size) | (columns < attention_sinks))
    return mask & (columns // size == tokens // size)


def attention_by_parts(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    cap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attention whose logits are `cap * tanh(logits / cap)` (Gemma 2), or that has a further logit
    for each head in its softmax, `sinks` [Hkv, 1, H / Hkv] (gpt-oss), or both.

    q [1, T, H, D]; keys and values [1, S, Hkv, D]; mask bool [T, S]; returns [1, T, H, D].
    """
    groups = q.shape[2] // keys.shape[2]
    # Key heads first, then the queries that share one: [Hkv, groups, T, D] and [Hkv, 1, S, D].
    heads = q[0].transpose(0, 1).unflatten(0, (-1, groups))
    keys, values = keys[0].transpose(0, 1).unsqueeze(1), values[0].transpose(0, 1).unsqueeze(1)
    logits = heads @ keys.transpose(2, 3) * (q.shape[-1] ** -0.5 / (cap or 1.0))
    if cap is not None:
        logits = torch.tanh(logits) * cap
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    if sinks is not None:
        beside = sinks.transpose(1, 2).unsqueeze(-1).expand(-1, -1, q.shape[1], -1)
        logits = torch.cat((logits, beside), dim=-1)
    weights = torch.softmax(logits, dim=-1)
    attended = (weights if sinks is None else weights[..., :-1]) @ values
    return attended.flatten(0, 1).transpose(0, 1).unsqueeze(0)
