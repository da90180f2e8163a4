"""EXAONE 4: norms after attention and feed-forward in place of those before, QK norm; of the larger
one three of four layers have a window, and the others no rotary embedding."""

import re

from quatrain.checkpoint.families.family import (
    NO_BIASES,
    Family,
    GgufReading,
    HuggingFaceReading,
    Params,
    sizes,
)
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.gguf.tensor_names import POST_NORMS as GGUF_POST_NORMS
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.layer_types import window_or_no_rope, window_where
from quatrain.checkpoint.hugging_face.tensors.tensor_names import POST_NORMS

_NORMS = {"pre_norm": False, "post_attention_norm": True, "post_ffn_norm": True}


def _params(fields: Fields) -> Params:
    if fields.get("sliding_window") is None:
        return _NORMS | window_where(fields, [False] * fields.layer_count())
    return _NORMS | window_or_no_rope(fields, _pattern(fields))


def _pattern(fields: Fields) -> int | None:
    """Every how manieth layer has no window: "LLLG", as releases state it, is 4."""
    stated = fields.get("sliding_window_pattern")
    if isinstance(stated, str) and re.fullmatch("L*G", stated):
        return len(stated)
    return fields.integer_or_none("sliding_window_pattern")


def _gguf_params(metadata: GgufMetadata) -> Params:
    if not metadata.number("attention.sliding_window", 0):
        return _NORMS
    return _NORMS | metadata.windows_or_no_rope()


EXAONE4 = Family(
    hugging_face=HuggingFaceReading(
        model_type="exaone4",
        biases=NO_BIASES,
        defaults={
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "vocab_size": 102400,
            "hidden_act": "silu",
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "sliding_window": 4096,
            "sliding_window_pattern": 4,
        },
        sizes=sizes(4096, 16384, 32),
        params=_params,
        names=POST_NORMS,
    ),
    gguf=GgufReading(
        "exaone4",
        half_split=True,
        params=_gguf_params,
        names=GGUF_POST_NORMS,
    ),
)
