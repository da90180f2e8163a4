"""Mistral: every layer sees the last `sliding_window` tokens only. Ministral: some do. Ministral 3:
none does; queries grow with their position, and YaRN is the default."""

from quatrain.checkpoint.families.family import (
    NO_BIASES,
    Family,
    GgufReading,
    HuggingFaceReading,
    Params,
    sizes,
)
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.gguf.rope_scaling import rope_scaling
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.layer_types import window_of_all, window_where
from quatrain.checkpoint.hugging_face.rope.older_rope_fields import refuse_unread_base
from quatrain.checkpoint.hugging_face.rope.rope_parameters import rope_params
from quatrain.checkpoint.yarn import attention_scale
from quatrain.errors import InputError

_DEFAULTS = {
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "hidden_act": "silu",
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
}

_DEFAULTS3 = _DEFAULTS | {
    "head_dim": 128,
    "vocab_size": 131072,
    "max_position_embeddings": 262144,
    "rms_norm_eps": 1e-5,
    "sliding_window": None,
}
_GROWTH = "llama_4_scaling_beta"  # by which queries grow
_ROPE3 = {
    "rope_type": "yarn",
    "rope_theta": 1000000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 16384,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    _GROWTH: 0.1,
}


def _mistral_rope(fields: Fields) -> Params:
    for stated in ("rope_scaling", "rope_parameters"):
        if fields.object_of(stated).get(_GROWTH) is not None:
            raise InputError(
                f"{fields.source}: {stated} has {_GROWTH}, which models of model_type "
                "'ministral3' have and 'mistral' (the default) do not; set model_type to "
                "'ministral3'"
            )
    return rope_params(fields)


def _ministral(fields: Fields) -> Params:
    slides = fields.get("sliding_window") is not None
    return window_where(fields, [slides] * fields.layer_count())


def _ministral3_rope(fields: Fields) -> Params:
    """The parameters of the rotary embedding also hold the factor by which queries grow."""
    stated = fields.object_of("rope_scaling") | fields.object_of("rope_parameters")
    scaling = stated or Fields(_ROPE3, fields.source)
    if not stated and fields["rope_theta"] != _DEFAULTS3["rope_theta"]:
        refuse_unread_base(fields, _ROPE3["rope_theta"])
    return rope_params(fields if stated else fields | {"rope_parameters": _ROPE3}) | _growth(
        scaling.number(_GROWTH), scaling.integer("original_max_position_embeddings")
    )


def _growth(by: float, every: int) -> Params:
    """The growth of queries, a step `every` that many positions."""
    return {
        "attn_temperature_tuning": True,
        "attn_temperature_with_rope": True,
        "floor_scale": every,
        "attn_scale": by,
    }


def _ministral3_gguf_rope(metadata: GgufMetadata) -> Params:
    """As llama.cpp reads it, where both tables are multiplied as DeepSeek does."""
    rope, scaling = rope_scaling(metadata), "rope.scaling"
    factor = metadata.number(f"{scaling}.factor", 1.0)
    if weight := metadata.number(f"{scaling}.yarn_log_multiplier", 0):
        own = attention_scale(factor) / attention_scale(factor, weight)
        beside = metadata.number(f"{scaling}.attn_factor", 1.0)
        rope |= {"rope_scaling_attention_factor": own * beside}
    if by := metadata.number("attention.temperature_scale", 0):
        rope |= _growth(by, metadata.count(f"{scaling}.original_context_length"))
    return rope


# A GGUF file of either calls it a llama, and is read as such.
MISTRAL = Family(
    HuggingFaceReading(
        "mistral",
        _DEFAULTS,
        sizes=sizes(4096, 14336, 32),
        params=window_of_all,
        rope=_mistral_rope,
        biases=NO_BIASES,
    )
)
MINISTRAL = Family(HuggingFaceReading("ministral", _DEFAULTS, params=_ministral, biases=NO_BIASES))
MINISTRAL3 = Family(
    hugging_face=HuggingFaceReading(
        model_type="ministral3",
        defaults=_DEFAULTS3,
        sizes=sizes(4096, 14336, 34),
        params=window_of_all,
        rope=_ministral3_rope,
        biases=NO_BIASES,
    ),
    gguf=GgufReading(
        "mistral3",
        half_split=False,
        params=GgufMetadata.window_of_all,
        rope=_ministral3_gguf_rope,
    ),
)
