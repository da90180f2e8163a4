"""Granite 3 and 4, dense: four multipliers (maximal update parametrization). Granite 4's files are
those of a hybrid whose layers all have attention, and a shared expert alone."""

from quatrain.checkpoint.families.family import Family, GgufReading, HuggingFaceReading, Params
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import Fields, integer, layer_count, number, refusal
from quatrain.checkpoint.hugging_face.fused_rows import rows_apart
from quatrain.errors import InputError

_DEFAULTS = {
    "num_attention_heads": 32,
    "vocab_size": 32000,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "embedding_multiplier": 1.0,
    "attention_multiplier": 1.0,
    "residual_multiplier": 1.0,
    "logits_scaling": 1.0,
}
_DEFAULTS4 = _DEFAULTS | {"num_local_experts": 8, "shared_intermediate_size": 1024}


def _params(fields: Fields, source: str) -> Params:
    return {
        "embedding_scale_factor": number(fields, "embedding_multiplier", source),
        "attention_multiplier": number(fields, "attention_multiplier", source),
        "residual_multiplier": number(fields, "residual_multiplier", source),
        "logits_scaling": number(fields, "logits_scaling", source),
    }


def _granite4(fields: Fields, source: str) -> Params:
    kinds = fields.get("layer_types", fields.get("layers_block_type"))
    layers = layer_count(fields, source)
    if kinds not in (["attention"] * layers, ["full_attention"] * layers):
        raise InputError(
            f"{source}: some layers are Mamba's (layer_types), which this backbone does not "
            "implement; the dense ones of Granite 4.0 are 350m, 1b and micro, without an h"
        )
    if integer(fields, "num_local_experts", source, least=0):
        raise InputError(
            f"{source}: num_local_experts is {fields['num_local_experts']}, and experts whose "
            "answers are weighed are not implemented; the dense ones of Granite 4.0 are 350m, 1b "
            "and micro, without an h"
        )
    rotated = fields.get("position_embedding_type")
    if rotated not in (None, "rope", "nope"):
        raise refusal(fields, "position_embedding_type", "'rope', 'nope' or null", source)
    return _params(fields, source) | {
        "hidden_dim": integer(fields, "shared_intermediate_size", source),
        "no_rope_layer_interval": None if rotated == "rope" else 1,
    }


def _tensors4(stored: LazyTensors, fields: Fields, source: str) -> LazyTensors:
    hidden = integer(fields, "shared_intermediate_size", source)
    return rows_apart(stored, {"input_linear": {"gate_proj": hidden, "up_proj": hidden}}, source)


def _gguf_params(metadata: GgufMetadata) -> Params:
    return {
        "embedding_scale_factor": metadata.decimal("embedding_scale", 1.0),
        "attention_multiplier": metadata.decimal("attention.scale", 0.0) or None,
        "residual_multiplier": metadata.decimal("residual_scale", 1.0),
        "logits_scaling": metadata.decimal("logit_scale"),
    }


GRANITE = Family(
    hugging_face=HuggingFaceReading(
        model_type="granite",
        defaults=_DEFAULTS,
        params=_params,
    ),
    gguf=GgufReading(
        "granite",
        half_split=False,
        params=_gguf_params,
        reads=frozenset({"attention.scale", "logit_scale", "residual_scale", "embedding_scale"}),
    ),
)
GRANITE4 = Family(
    hugging_face=HuggingFaceReading(
        model_type="granitemoehybrid",
        defaults=_DEFAULTS4,
        params=_granite4,
        names={
            "shared_mlp.gate_proj": "feed_forward.w1",
            "shared_mlp.up_proj": "feed_forward.w3",
            "shared_mlp.output_linear": "feed_forward.w2",
        },
        tensors=_tensors4,
    )
)
