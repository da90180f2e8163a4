"""Gemma 4's text model in its models without towers (12B): that of the larger Gemma 4, without
per-layer embeddings."""

from dataclasses import replace

from quatrain.checkpoint.families.family import Family
from quatrain.checkpoint.families.gemma4.hugging_face import HUGGING_FACE

_PER_LAYER = ("vocab_size_per_layer_input", "hidden_size_per_layer_input")
_SHARED = {name: value for name, value in HUGGING_FACE.defaults.items() if name not in _PER_LAYER}
_DEFAULTS = _SHARED | {
    "max_position_embeddings": 262144,
    "sliding_window": 1024,
    "use_bidirectional_attention": "vision",
}

GEMMA4_UNIFIED = Family(replace(HUGGING_FACE, model_type="gemma4_unified_text", defaults=_DEFAULTS))
