"""Granite MoE with a shared expert: a Granite 3 MoE with an expert for every token besides, without
a gate. A GGUF file of one calls it a granitemoe, and is read as such."""

from quatrain.checkpoint.families import granite_moe, weighted_experts
from quatrain.checkpoint.families.family import Family, HuggingFaceReading, Params, sizes
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.tensors.fused_rows import rows_apart

_MIXTURE = granite_moe.GRANITE_MOE.hugging_face


def _params(fields: Fields) -> Params:
    width = fields.integer("shared_intermediate_size", least=0)
    shared = weighted_experts.SHARED | {"shared_hidden_dim": width} if width else {}
    return granite_moe.params(fields) | shared


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    width = fields.integer("shared_intermediate_size", least=0)
    parts = {"input_linear": {"gate_proj": width, "up_proj": width}}
    return rows_apart(granite_moe.tensors(stored, fields), parts, fields.source)


GRANITE_MOE_SHARED = Family(
    hugging_face=HuggingFaceReading(
        model_type="granitemoeshared",
        defaults={**_MIXTURE.defaults, "shared_intermediate_size": 0},
        sizes=sizes(4096, 11008, 32),
        params=_params,
        names={
            **_MIXTURE.names,
            **weighted_experts.shared_names("shared_mlp", down="output_linear"),
        },
        tensors=_tensors,
    )
)
