"""Qwen 2.5 and Qwen 3, dense: bias on Q, K and V, or RMS norm of each query and key head (seen from
the tensors that are there). The text models of Qwen 2 VL, 2.5 VL, 2.5 Omni and 3 VL are the same,
except for their rotary embedding by three positions, which are equal for text (M-RoPE; Wang et al.,
2024, "Qwen2-VL", section 2.1)."""

from dataclasses import replace

from quatrain.checkpoint.families.family import (
    QKV_BIASES,
    Family,
    GgufReading,
    HuggingFaceReading,
    Params,
    sizes,
)
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.layer_types import window_of_some
from quatrain.checkpoint.hugging_face.rope.rope_parameters import rope_params, rope_type

_DEFAULTS = {
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 151936,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "max_window_layers": 28,
}
_DEFAULTS2_VL = _DEFAULTS | {
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 152064,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000000.0,
    "max_window_layers": 80,
}
_DEFAULTS3_VL = {
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": 128,
    "vocab_size": 151936,
    "hidden_act": "silu",
    "max_position_embeddings": 128000,
    "rms_norm_eps": 1e-6,
    "rope_theta": 500000.0,
}
_OF_THREE_POSITIONS = ("mrope_section", "mrope_interleaved")


def _params(fields: Fields) -> Params:
    layers = fields.layer_count()
    # A file that names the windows of each layer, or uses none, may have null here.
    needed = fields.flag("use_sliding_window") and fields.get("layer_types") is None
    first = fields.integer("max_window_layers", least=0) if needed else layers
    return window_of_some(fields, [index >= first for index in range(layers)])


def of_one_position(fields: Fields) -> Fields:
    """`fields`, whose rotary embedding is as that of any text: which planes turn by which of the
    three positions makes no difference where all are one."""
    plain = {}
    for name in ("rope_scaling", "rope_parameters"):
        stated = fields.object_of(name)
        plain[name] = {key: stated[key] for key in stated if key not in _OF_THREE_POSITIONS}
        if rope_type(stated) == "mrope":
            plain[name] = {key: plain[name][key] for key in plain[name] if key != "type"}
            plain[name] |= {"rope_type": "default"}
    return fields | plain


def _rope_of_text(fields: Fields) -> Params:
    return rope_params(of_one_position(fields))


QWEN2 = Family(
    hugging_face=HuggingFaceReading(
        "qwen2", _DEFAULTS, sizes=sizes(4096, 22016, 32), params=_params, biases=QKV_BIASES
    ),
    gguf=GgufReading("qwen2", half_split=True, biased=True),
)
QWEN3 = Family(
    hugging_face=HuggingFaceReading(
        "qwen3",
        _DEFAULTS | {"head_dim": 128},
        sizes=sizes(4096, 22016, 32),
        params=_params,
    ),
    gguf=GgufReading("qwen3", half_split=True),
)
_HUGGING_FACE2_VL = HuggingFaceReading(
    model_type="qwen2_vl_text",
    defaults=_DEFAULTS2_VL,
    sizes=sizes(8192, 29568, 80),
    params=_params,
    rope=_rope_of_text,
    biases=QKV_BIASES,
)
QWEN2_VL = Family(
    hugging_face=_HUGGING_FACE2_VL,
    gguf=GgufReading("qwen2vl", half_split=True, biased=True),  # Qwen 2.5 VL's, too
)
QWEN2_5_VL = Family(replace(_HUGGING_FACE2_VL, model_type="qwen2_5_vl_text"))
QWEN2_5_OMNI = Family(
    HuggingFaceReading(
        model_type="qwen2_5_omni_text",
        defaults=_DEFAULTS2_VL
        | {
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "rms_norm_eps": 1e-6,
            "sliding_window": 32768,
            "max_window_layers": 28,
        },
        sizes=sizes(3584, 18944, 28),
        params=_params,
        rope=_rope_of_text,
        biases=QKV_BIASES,
        tied=True,
    )
)
QWEN3_VL = Family(
    hugging_face=HuggingFaceReading(
        "qwen3_vl_text", _DEFAULTS3_VL, sizes=sizes(4096, 22016, 32), rope=_rope_of_text
    ),
    gguf=GgufReading("qwen3vl", half_split=True),
)
