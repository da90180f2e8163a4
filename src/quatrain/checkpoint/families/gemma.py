"""Gemma: scaled embeddings, and a gelu for the silu. Gemma 2 and the text model of Gemma 3: norms
after attention and feed-forward too, soft caps (Gemma 2), QK norm and another rotary embedding in
sliding-window layers (Gemma 3)."""

from dataclasses import replace
from functools import partial

from quatrain.checkpoint.families.family import Family, GgufReading, HuggingFaceReading, Params
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.gguf.tensor_names import POST_NORMS as GGUF_POST_NORMS
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.layer_types import layer_types
from quatrain.checkpoint.hugging_face.rope.older_rope_fields import full_scaling
from quatrain.checkpoint.hugging_face.rope.rope_parameters import rope_type, scaled_rope
from quatrain.checkpoint.hugging_face.tensors.norms import norms_plus_one
from quatrain.checkpoint.hugging_face.tensors.tensor_names import POST_NORMS
from quatrain.checkpoint.nth_layers import FULL, SLIDING, full_every
from quatrain.errors import InputError

_DEFAULTS1 = {
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 256,
    "vocab_size": 256000,
    "hidden_act": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
}
_DEFAULTS = {
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "vocab_size": 256000,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}
# As the part of a model that also sees, a configuration may leave out any of these.
_DEFAULTS3 = _DEFAULTS | {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "vocab_size": 262208,
    "max_position_embeddings": 131072,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
}
NAMES = POST_NORMS | {"pre_feedforward_layernorm": "ffn_norm"}
ACTIVATIONS: dict[str | None, str] = {"gelu_pytorch_tanh": "gelu_approx", "gelu": "gelu"}


def _gemma1(fields: Fields) -> Params:
    if fields.flag("use_bidirectional_attention"):
        raise InputError(f"{fields.source}: use_bidirectional_attention is not implemented")
    return {"embedding_scale_factor": fields.integer("hidden_size") ** 0.5}


def _params(fields: Fields, pattern: int) -> Params:
    pattern = fields.integer_or_none("sliding_window_pattern") or pattern
    kinds = layer_types(fields) or full_every(pattern, fields.layer_count())
    return _gemma1(fields) | {
        "attention_multiplier": fields.number("query_pre_attn_scalar") ** -0.5,
        "post_attention_norm": True,
        "post_ffn_norm": True,
        "sliding_window": fields.integer("sliding_window"),
        "layer_types": kinds,
        "attn_logit_softcapping": fields.number_or_none("attn_logit_softcapping"),
        "output_soft_cap_temp": fields.number_or_none("final_logit_softcapping"),
    }


def _vault_gemma(fields: Fields) -> Params:
    """A Gemma 2 without norms of what attention and feed-forward give."""
    without = {"post_attention_norm": False, "post_ffn_norm": False}
    return _params(fields, pattern=2) | without


def _gemma3(fields: Fields) -> Params:
    if fields.get("attn_logit_softcapping") is not None:
        raise fields.refusal("attn_logit_softcapping", "null, as in every released Gemma 3")
    return _params(fields, pattern=6)


def _gemma3_rope(fields: Fields) -> Params:
    """Layers that see all tokens may be scaled, by `rope_scaling` or, since transformers 5, in
    their part of `rope_parameters`; sliding layers have a frequency base of their own."""
    by_layer = fields.object_of("rope_parameters")
    if by_layer.keys() - {FULL, SLIDING}:
        raise fields.refusal("rope_parameters", f"only '{FULL}' and '{SLIDING}'")
    full, sliding = (by_layer.object_of(name) for name in (FULL, SLIDING))
    full = full_scaling(fields, full)
    if rope_type(sliding) != "default" or sliding.get("partial_rotary_factor") not in (None, 1):
        raise by_layer.refusal(SLIDING, "only rope_type 'default' and rope_theta")
    if sliding.get("rope_theta") is None:
        local = fields.number("rope_local_base_freq")
    else:
        local = sliding.number("rope_theta")
    return scaled_rope(fields, full) | {"local_rope_theta": local}


def _gguf_gemma1(metadata: GgufMetadata) -> Params:
    dim = metadata.count("embedding_length")
    return {"act_fn": "gelu_approx", "embedding_scale_factor": dim**0.5}


def _gguf_params(
    metadata: GgufMetadata, period: int, largest: int, window: int | None = None
) -> Params:
    """`period`: every such layer sees all tokens, the others a `window` where the file says no
    other. The model of `largest` layers scales queries by dim / heads in place of the head
    dimension."""
    layers, dim = metadata.count("block_count"), metadata.count("embedding_length")
    width = metadata.head_dim()
    if layers == largest:
        width = dim // metadata.count("attention.head_count")
    return _gguf_gemma1(metadata) | {
        "attention_multiplier": width**-0.5,
        "post_attention_norm": True,
        "post_ffn_norm": True,
        "output_soft_cap_temp": metadata.number("final_logit_softcapping", 0) or None,
        "sliding_window": metadata.number("attention.sliding_window", window),
        "layer_types": metadata.layer_types_or_interval(period),
    }


def _gguf_gemma2(metadata: GgufMetadata) -> Params:
    """Fields that the first files lack have llama.cpp's values."""
    caps = {
        "attn_logit_softcapping": metadata.number("attn_logit_softcapping", 50.0) or None,
        "output_soft_cap_temp": metadata.number("final_logit_softcapping", 30.0) or None,
    }
    return _gguf_params(metadata, period=2, largest=46, window=4096) | caps


def _gguf_gemma3(metadata: GgufMetadata) -> Params:
    local = metadata.decimal("rope.freq_base_swa", 10000.0)
    return _gguf_params(metadata, period=6, largest=62) | {"local_rope_theta": local}


_HUGGING_FACE2 = HuggingFaceReading(
    model_type="gemma2",
    defaults=_DEFAULTS,
    params=partial(_params, pattern=2),
    names=NAMES,
    tensors=norms_plus_one,
    activations=ACTIVATIONS,
    tied=True,
)
_HUGGING_FACE3 = replace(
    _HUGGING_FACE2,
    model_type="gemma3_text",
    defaults=_DEFAULTS3,
    params=_gemma3,
    rope=_gemma3_rope,
)
GEMMA1 = Family(
    hugging_face=HuggingFaceReading(
        model_type="gemma",
        defaults=_DEFAULTS1,
        params=_gemma1,
        tensors=norms_plus_one,
        # What the first releases call "gelu" was trained with the approximation by tanh.
        activations={"gelu_pytorch_tanh": "gelu_approx", "gelu": "gelu_approx"},
        tied=True,
    ),
    gguf=GgufReading("gemma", half_split=True, params=_gguf_gemma1),
)
GEMMA2 = Family(
    hugging_face=_HUGGING_FACE2,
    gguf=GgufReading(
        "gemma2",
        half_split=True,
        params=_gguf_gemma2,
        names=GGUF_POST_NORMS,
    ),
)
VAULT_GEMMA = Family(
    replace(
        _HUGGING_FACE2,
        model_type="vaultgemma",
        params=_vault_gemma,
        names={"pre_feedforward_layernorm": "ffn_norm"},
    )
)
GEMMA3 = Family(
    hugging_face=_HUGGING_FACE3,
    gguf=GgufReading("gemma3", half_split=True, params=_gguf_gemma3, names=GGUF_POST_NORMS),
)
