"""OLMo 2 and 3: norms after attention and feed-forward in place of those before, and one of all
query heads together, and of all key heads. Of OLMo 3 three of four layers have a window, and a
rotary embedding that is not scaled."""

from quatrain.checkpoint.families.family import Family, GgufReading, HuggingFaceReading, Params
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.gguf.tensor_names import POST_NORMS as GGUF_POST_NORMS
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.layer_types import window_where
from quatrain.checkpoint.hugging_face.rope.older_rope_fields import full_scaling, refuse_unread_base
from quatrain.checkpoint.hugging_face.rope.rope_parameters import scaled_rope
from quatrain.checkpoint.hugging_face.tensors.tensor_names import POST_NORMS
from quatrain.checkpoint.nth_layers import FULL, SLIDING, is_nth

_DEFAULTS = {
    "num_attention_heads": 32,
    "vocab_size": 50304,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
}
_DEFAULTS3 = _DEFAULTS | {"rope_theta": 500000.0, "sliding_window": 4096}
_NORMS = {
    "pre_norm": False,
    "post_attention_norm": True,
    "post_ffn_norm": True,
    "qk_norm_whole": True,
}


def _olmo3(fields: Fields) -> Params:
    slides = [not is_nth(index, 4) for index in range(fields.layer_count())]
    return _NORMS | window_where(fields, slides)


def _olmo3_rope(fields: Fields) -> Params:
    """Full-attention layers may have a scaled rotary embedding, by `rope_scaling` or, since
    transformers 5, in their part of `rope_parameters`; sliding layers have the same base, unscaled.
    A scaling that is not stated by layer type applies to both in transformers 4, and only to
    full-attention layers in transformers 5."""
    by_layer = fields.object_of("rope_parameters")
    if by_layer.keys() - {FULL, SLIDING}:  # of which transformers reads nothing
        raise fields.refusal("rope_parameters", f"only '{FULL}' and '{SLIDING}'")
    full = scaled_rope(fields, full_scaling(fields, by_layer.object_of(FULL)))
    sliding = by_layer.object_of(SLIDING)
    if sliding.get("rope_theta") is None:
        refuse_unread_base(fields, _DEFAULTS3["rope_theta"], "layers with a window")
    local = scaled_rope(fields, sliding)
    if local.keys() != {"rope_theta", "partial_rotary_factor"}:
        raise by_layer.refusal(SLIDING, "only rope_type 'default' and rope_theta")
    return full | {"local_rope_theta": local["rope_theta"]}


def _gguf_params(metadata: GgufMetadata) -> Params:
    """With a window it is an OLMo 3."""
    if not metadata.number("attention.sliding_window", 0):
        return _NORMS
    base = metadata.decimal("rope.freq_base", 10000.0)
    return _NORMS | {
        "sliding_window": metadata.count("attention.sliding_window"),
        "layer_types": metadata.layer_types_or_interval(4),
        "local_rope_theta": metadata.decimal("rope.freq_base_swa", base),
    }


OLMO2 = Family(
    hugging_face=HuggingFaceReading(
        "olmo2", _DEFAULTS, params=lambda fields: _NORMS, names=POST_NORMS
    ),
    gguf=GgufReading(
        "olmo2",
        half_split=True,
        params=_gguf_params,
        names=GGUF_POST_NORMS,
    ),
)
# A GGUF file of one calls it an olmo2, and is read as such.
OLMO3 = Family(
    HuggingFaceReading("olmo3", _DEFAULTS3, params=_olmo3, rope=_olmo3_rope, names=POST_NORMS)
)
