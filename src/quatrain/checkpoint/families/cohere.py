"""Command R (`cohere`) and Command R7B (`cohere2`): one layer norm for attention and feed-forward,
side by side, pairs of neighbours rotated, logits multiplied. Of the second three of four layers
have a window, and the others no rotary embedding."""

from quatrain.checkpoint.families.family import Family, GgufReading, HuggingFaceReading, Params
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import (
    Fields,
    flag,
    integer_or_none,
    layer_count,
    number,
)
from quatrain.checkpoint.hugging_face.layer_types import (
    FULL,
    SLIDING,
    interval_of,
    is_nth,
    layer_types,
    window_where,
)
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


def _cohere(fields: Fields, source: str) -> Params:
    if flag(fields, "use_qk_norm", source):
        raise InputError(
            f"{source}: use_qk_norm is true: a layer norm of its own for each head, which this "
            "backbone does not implement; Command R7B (cohere2) has none"
        )
    scale = number(fields, "logit_scale", source)
    return _ONE_NORM | {"use_hf_rope": False, "logits_scaling": 1.0 / scale}


def _cohere2(fields: Fields, source: str) -> Params:
    kinds = layer_types(fields, source)
    if kinds is None:
        pattern = integer_or_none(fields, "sliding_window_pattern", source) or 4
        layers = range(layer_count(fields, source))
        kinds = [FULL if is_nth(index, pattern) else SLIDING for index in layers]
    full = [index for index, kind in enumerate(kinds) if kind == FULL]
    interval = interval_of(full, "layer_types", fields, source)
    windows = window_where(fields | {"layer_types": kinds}, [], source)
    return _cohere(fields, source) | windows | {"no_rope_layer_interval": interval}


def _gguf_cohere(metadata: GgufMetadata) -> Params:
    return _ONE_NORM | {"logits_scaling": 1.0 / metadata.decimal("logit_scale")}


def _gguf_cohere2(metadata: GgufMetadata) -> Params:
    """llama.cpp knows no other pattern of windows."""
    count = min(metadata.count("block_count"), len(metadata.file.tensors))
    return _gguf_cohere(metadata) | {
        "sliding_window": metadata.count("attention.sliding_window"),
        "layer_types": [FULL if is_nth(index, 4) else SLIDING for index in range(count)],
        "no_rope_layer_interval": 4,
    }


COHERE = Family(
    hugging_face=HuggingFaceReading("cohere", _DEFAULTS, params=_cohere, tied=True),
    gguf=GgufReading(
        "command-r", half_split=False, params=_gguf_cohere, reads=frozenset({"logit_scale"})
    ),
)
COHERE2 = Family(
    hugging_face=HuggingFaceReading("cohere2", _DEFAULTS2, params=_cohere2, tied=True),
    gguf=GgufReading(
        "cohere2", half_split=False, params=_gguf_cohere2, reads=frozenset({"logit_scale"})
    ),
)
