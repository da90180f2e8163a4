"""Bamba: state spaces (Mamba-2) instead of attention in all but a few layers, half of each head
rotated in those."""

from quatrain.checkpoint.families import state_spaces
from quatrain.checkpoint.families.family import Family, HuggingFaceReading, Params
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.rope.rope_parameters import partial_rope_params
from quatrain.checkpoint.nth_layers import FULL

MAMBA = "mamba"


def _params(fields: Fields) -> Params:
    attending = fields.integers_or_none("attn_layer_indices") or []
    layers = range(fields.layer_count())
    if not set(attending) <= {*layers}:
        raise fields.refusal("attn_layer_indices", f"layers from 0 to {layers[-1]}")
    return state_spaces.params_of_expanded(fields) | {
        "layer_types": [FULL if index in attending else MAMBA for index in layers],
        "attention_output_bias": fields.flag("attention_bias"),
    }


def _rope(fields: Fields) -> Params:
    return partial_rope_params(fields, rotated=0.5)


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    return state_spaces.tensors(stored, state_spaces.params_of_expanded(fields), fields.source)


BAMBA = Family(
    hugging_face=HuggingFaceReading(
        model_type="bamba",
        defaults={
            **state_spaces.DEFAULTS,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 128000,
            "hidden_act": "silu",
            "max_position_embeddings": 262144,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "mlp_bias": False,
        },
        params=_params,
        rope=_rope,
        names=state_spaces.NAMES | state_spaces.NAMES_BEFORE_FEED_FORWARD,
        tensors=_tensors,
    )
)
