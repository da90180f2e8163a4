"""Qwen 2.5 and Qwen 3, dense: bias on Q, K and V, or RMS norm of each query and key head (both
seen from the tensors that are there)."""

from quatrain.checkpoint.families.family import Family, GgufReading, HuggingFaceReading, Params
from quatrain.checkpoint.hugging_face.fields import Fields, integer, layer_count
from quatrain.checkpoint.hugging_face.layer_types import window_of_some

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


def _params(fields: Fields, source: str) -> Params:
    first = integer(fields, "max_window_layers", source, least=0)
    slides = [index >= first for index in range(layer_count(fields, source))]
    return window_of_some(fields, slides, source)


QWEN2 = Family(
    hugging_face=HuggingFaceReading("qwen2", _DEFAULTS, params=_params),
    gguf=GgufReading("qwen2", half_split=True),
)
QWEN3 = Family(
    hugging_face=HuggingFaceReading("qwen3", _DEFAULTS | {"head_dim": 128}, params=_params),
    gguf=GgufReading("qwen3", half_split=True),
)
