"""Qwen 3.5 MoE, the text model of what also sees included: a Qwen 3.5 with a mixture of experts in
each layer, and an expert for every token behind a gate of its own."""

from quatrain.checkpoint.families import weighted_experts
from quatrain.checkpoint.families.family import Family, GgufReading, HuggingFaceReading, Params
from quatrain.checkpoint.families.qwen3_5 import gguf as dense_gguf
from quatrain.checkpoint.families.qwen3_5 import hugging_face as dense
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.gguf.blocks import GgufTensor
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.tensors.experts import experts_apart


def _params(fields: Fields) -> Params:
    width = fields.integer("moe_intermediate_size")
    return (
        dense.params(fields)
        | weighted_experts.hugging_face_params(fields, normalized=True)
        | weighted_experts.shared_params(fields)
        | {"hidden_dim": width, "moe_hidden_dim": width}
    )


def tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    """As a dense model's, each expert's matrices apart."""
    apart = experts_apart(dense.tensors(stored, fields), fields.source)
    return weighted_experts.with_shared_gates(apart)


def gguf_params(metadata: GgufMetadata) -> Params:
    """The fields of params.json of a GGUF file's mixtures and delta rules."""
    mixture = weighted_experts.gguf_params(metadata, normalized=True, shared=True)
    return dense_gguf.params(metadata) | mixture


def _gguf_params(metadata: GgufMetadata) -> Params:
    params = gguf_params(metadata)
    return params | {"hidden_dim": metadata.count("expert_feed_forward_length")}


def _gguf_tensors(tensors: dict[str, GgufTensor], metadata: GgufMetadata) -> dict[str, GgufTensor]:
    return weighted_experts.gguf_with_shared_gates(dense_gguf.tensors(tensors, metadata))


GGUF_NAMES = {
    **dense_gguf.NAMES,
    **weighted_experts.GGUF_NAMES,
    **weighted_experts.GGUF_SHARED_NAMES,
}
NAMES = {**dense.NAMES, **weighted_experts.names("mlp"), **weighted_experts.SHARED_NAMES}

QWEN3_5_MOE = Family(
    hugging_face=HuggingFaceReading(
        model_type="qwen3_5_moe_text",
        defaults={
            **dense.DEFAULTS,
            "num_key_value_heads": 2,
            "moe_intermediate_size": 512,
            "shared_expert_intermediate_size": 512,
            "num_experts": 256,
            "num_experts_per_tok": 8,
        },
        sizes={"hidden_size": 2048, "num_hidden_layers": 40},
        params=_params,
        rope=dense.rope,
        names=NAMES,
        tensors=tensors,
        unused=dense.predicts_further,
    ),
    gguf=GgufReading(
        "qwen35moe",
        half_split=True,
        params=_gguf_params,
        names=GGUF_NAMES,
        filters=dense_gguf.FILTERS,
        tensors=_gguf_tensors,
    ),
)
