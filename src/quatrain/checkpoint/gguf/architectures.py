"""The architectures of GGUF files that the backbone runs: what each has beyond a plain Llama.

Keys, names and what they mean are those of llama.cpp's converter and loader. Where these fix a
figure for an architecture and write none into the file, it is fixed here as well.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from quatrain.checkpoint.gguf.metadata import GgufMetadata

Params = dict[str, Any]


@dataclass(frozen=True)
class Architecture:
    """`half_split`: whether its Q and K rows are in that order (interleaved otherwise).
    `params(metadata)`: fields of params.json beyond a plain Llama's. `names`: of its tensors,
    those called otherwise, to Meta's. `fused(metadata)`: of each tensor that is several in one,
    the parts' names and rows. `reads`: keys that would be refused where nothing reads them."""

    half_split: bool
    params: Callable[[GgufMetadata], Params] = lambda metadata: {}
    names: Mapping[str, str] = field(default_factory=dict)
    fused: Callable[[GgufMetadata], dict[str, dict[str, int]]] = lambda metadata: {}
    reads: frozenset[str] = frozenset()


def _sliding(metadata: GgufMetadata) -> Params:
    """Every layer sees the last tokens only (Mistral, which GGUF calls a llama; Phi-3)."""
    window = metadata.window()
    return {"sliding_window": window} if window else {}


def _gemma(metadata: GgufMetadata, period: int, largest: int) -> Params:
    """`period`: every such layer sees all tokens. The model of `largest` layers scales queries
    by dim / heads in place of the head dimension."""
    pattern = metadata.get("attention.sliding_window_pattern")
    period = pattern if isinstance(pattern, int) and pattern > 0 else period
    layers, dim = metadata.count("block_count"), metadata.count("embedding_length")
    width = metadata.head_dim()
    if layers == largest:
        width = dim // metadata.count("attention.head_count")
    # Layers are counted in the file, too; an absurd count is refused when they are.
    count = min(layers, len(metadata.file.tensors))
    return {
        "act_fn": "gelu_approx",
        "embedding_scale_factor": dim**0.5,
        "attention_multiplier": width**-0.5,
        "post_attention_norm": True,
        "post_ffn_norm": True,
        "attn_logit_softcapping": metadata.get("attn_logit_softcapping"),
        "output_soft_cap_temp": metadata.get("final_logit_softcapping"),
        "sliding_window": metadata.number("attention.sliding_window"),
        "layer_types": [
            "sliding_attention" if (index + 1) % period else "full_attention"
            for index in range(count)
        ],
    }


def _gemma2(metadata: GgufMetadata) -> Params:
    return _gemma(metadata, period=2, largest=46)


def _gemma3(metadata: GgufMetadata) -> Params:
    local = metadata.decimal("rope.freq_base_swa", 10000.0)
    return _gemma(metadata, period=6, largest=62) | {"local_rope_theta": local}


def _phi3(metadata: GgufMetadata) -> Params:
    rotated = metadata.number("rope.dimension_count", metadata.head_dim())
    return {"partial_rotary_factor": rotated / metadata.head_dim()} | _sliding(metadata)


def _phi3_fused(metadata: GgufMetadata) -> dict[str, dict[str, int]]:
    heads = metadata.count("attention.head_count")
    queries = heads * metadata.head_dim()
    keys = metadata.count("attention.head_count_kv", heads) * metadata.head_dim()
    hidden = metadata.count("feed_forward_length")
    return {
        "attn_qkv": {"attn_q": queries, "attn_k": keys, "attn_v": keys},
        "ffn_up": {"ffn_gate": hidden, "ffn_up": hidden},
    }


def _granite(metadata: GgufMetadata) -> Params:
    return {
        "embedding_scale_factor": metadata.decimal("embedding_scale", 1.0),
        "attention_multiplier": metadata.decimal("attention.scale", 0.0) or None,
        "residual_multiplier": metadata.decimal("residual_scale", 1.0),
        "logits_scaling": metadata.decimal("logit_scale"),
    }


def _llama4(metadata: GgufMetadata) -> Params:
    experts = metadata.number("expert_count", 0)
    if experts == 1:
        raise metadata.refuse("expert_count", "expected 0, or 2 or more experts")
    params: Params = {
        "qk_norm_affine": False,
        "qk_norm_before_rope": False,
        "qk_norm_without_rope": False,
        "use_qk_norm": experts != 128,  # Maverick has none
    }
    if metadata.get("attention.sliding_window") != 0:
        params |= {
            "no_rope_layer_interval": 4,
            "attention_chunk_size": 8192,
            "attn_temperature_tuning": True,
        }
    if experts:
        params |= {
            "num_experts": experts,
            "num_activated_experts": metadata.number("expert_used_count"),
            "interleave_moe_layer_step": metadata.number("interleave_moe_layer_step", 1),
            "moe_hidden_dim": metadata.number("expert_feed_forward_length"),
        }
    return params


_POST_NORMS = {"post_attention_norm": "post_attention_norm", "post_ffw_norm": "post_ffn_norm"}
_EXPERTS = {
    f"ffn_{part}{suffix}": f"feed_forward.{place}.{ours}"
    for part, ours in (("gate", "w1"), ("down", "w2"), ("up", "w3"))
    for suffix, place in (("_exps", "experts"), ("_shexp", "shared_expert"))
} | {"ffn_gate_inp": "feed_forward.router"}

ARCHITECTURES = {
    "llama": Architecture(False, _sliding),
    "qwen2": Architecture(True),
    "qwen3": Architecture(True),
    "phi3": Architecture(True, _phi3, fused=_phi3_fused, reads=frozenset({"rope.dimension_count"})),
    "gemma2": Architecture(True, _gemma2, _POST_NORMS),
    "gemma3": Architecture(True, _gemma3, _POST_NORMS),
    "granite": Architecture(
        False,
        _granite,
        reads=frozenset({"attention.scale", "logit_scale", "residual_scale", "embedding_scale"}),
    ),
    "smollm3": Architecture(False, lambda metadata: {"no_rope_layer_interval": 4}),
    "llama4": Architecture(False, _llama4, _EXPERTS, reads=frozenset({"expert_count"})),
}

_NAMES = {
    "token_embd": "tok_embeddings",
    "output_norm": "norm",
    "output": "output",
    "attn_q": "attention.wq",
    "attn_k": "attention.wk",
    "attn_v": "attention.wv",
    "attn_output": "attention.wo",
    "attn_q_norm": "attention.q_norm_fn",
    "attn_k_norm": "attention.k_norm_fn",
    "attn_norm": "attention_norm",
    "ffn_norm": "ffn_norm",
    "ffn_gate": "feed_forward.w1",
    "ffn_down": "feed_forward.w2",
    "ffn_up": "feed_forward.w3",
}
_NAME = re.compile(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)")


def meta_name(name: str, architecture: Architecture) -> str:
    """`name` in Meta's naming, or itself where it is not known: it is reported later."""
    match = _NAME.fullmatch(name)
    known = {**_NAMES, **architecture.names}
    if not match or match[2] not in known:
        return name
    layer = f"layers.{match[1]}." if match[1] else ""
    return f"{layer}{known[match[2]]}.{match[3]}"
