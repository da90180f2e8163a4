"""Granite 4 dense: a Granite 3 in the format of a hybrid model, in which all layers have attention,
and only a shared expert."""

from quatrain.checkpoint.families import granite
from quatrain.checkpoint.families.family import Family, HuggingFaceReading, Params
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.tensors.fused_rows import rows_apart
from quatrain.errors import InputError

_DENSE = "the dense models of Granite 4.0 are 350m, 1b and micro, without an h in their name"


def _check_dense(fields: Fields) -> None:
    """Raise `InputError` if some layers are Mamba's, or there are experts."""
    kinds = fields.get("layer_types")
    layers = fields.layer_count()
    if kinds not in (["attention"] * layers, ["full_attention"] * layers):
        raise InputError(
            f"{fields.source}: some layers are Mamba layers (layer_types), which this backbone "
            f"does not implement; {_DENSE}"
        )
    if fields.integer("num_local_experts", least=0):
        raise InputError(
            f"{fields.source}: num_local_experts is {fields['num_local_experts']}, and experts "
            f"with a shared expert are not implemented for this family; {_DENSE}"
        )


def _params(fields: Fields) -> Params:
    _check_dense(fields)
    rotated = fields.get("position_embedding_type")
    if rotated not in (None, "rope", "nope"):
        raise fields.refusal("position_embedding_type", "'rope', 'nope' or null")
    return granite.GRANITE.hugging_face.params(fields) | {
        "hidden_dim": fields.integer("shared_intermediate_size"),
        "no_rope_layer_interval": None if rotated == "rope" else 1,
    }


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    _check_dense(fields)  # before a tensor's rows are what is wrong
    hidden = fields.integer("shared_intermediate_size")
    return rows_apart(
        stored, {"input_linear": {"gate_proj": hidden, "up_proj": hidden}}, fields.source
    )


GRANITE4 = Family(
    hugging_face=HuggingFaceReading(
        model_type="granitemoehybrid",
        defaults={
            **granite.MIXTURE_DEFAULTS,
            "num_local_experts": 8,
            "shared_intermediate_size": 1024,
        },
        aliases={"layers_block_type": "layer_types"},
        params=_params,
        names={
            "shared_mlp.gate_proj": "feed_forward.w1",
            "shared_mlp.up_proj": "feed_forward.w3",
            "shared_mlp.output_linear": "feed_forward.w2",
        },
        tensors=_tensors,
    )
)
