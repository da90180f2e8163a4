"""Command R (`cohere`) and Command R7B (`cohere2`): one layer norm for attention and feed-forward,
side by side, pairs of neighbours rotated, logits multiplied. Of the second three of four layers
have a window, and the others no rotary embedding."""

from quatrain.checkpoint.families.family import (
    Family,
    GgufReading,
    HuggingFaceReading,
    Params,
    sizes,
)
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.layer_types import window_or_no_rope
from quatrain.errors import InputError

_DEFAULTS = {
    "num_attention_heads": 64,
    "vocab_size": 256000,
    "hidden_act": "silu",
    "max_position_embeddings": 8192,
    "layer_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "logit_scale": 0.0625,
}
_DEFAULTS2 = _DEFAULTS | {"rope_theta": 10000.0, "sliding_window": 4096}
_ONE_NORM = {"norm_type": "layer", "parallel_residual": True}


def _cohere(fields: Fields) -> Params:
    if fields.flag("use_qk_norm"):
        raise InputError(
            f"{fields.source}: use_qk_norm is true: each head has its own layer norm, which this "
            "backbone does not implement; Command R7B (cohere2) does not use it"
        )
    scale = fields.number("logit_scale")
    return _ONE_NORM | {"use_hf_rope": False, "logits_scaling": 1.0 / scale}


def _cohere2(fields: Fields) -> Params:
    pattern = fields.integer_or_none("sliding_window_pattern") or 4
    return _cohere(fields) | window_or_no_rope(fields, pattern)


def _gguf_cohere(metadata: GgufMetadata) -> Params:
    """As in llama.cpp, a scale of 0 is none."""
    return _ONE_NORM | {"logits_scaling": 1.0 / (metadata.decimal("logit_scale") or 1.0)}


def _gguf_cohere2(metadata: GgufMetadata) -> Params:
    return _gguf_cohere(metadata) | metadata.windows_or_no_rope()


COHERE = Family(
    hugging_face=HuggingFaceReading("cohere", _DEFAULTS, params=_cohere, tied=True),
    gguf=GgufReading("command-r", half_split=False, params=_gguf_cohere),
)
COHERE2 = Family(
    hugging_face=HuggingFaceReading(
        "cohere2", _DEFAULTS2, sizes=sizes(8192, 22528, 40), params=_cohere2, tied=True
    ),
    gguf=GgufReading("cohere2", half_split=False, params=_gguf_cohere2),
)
