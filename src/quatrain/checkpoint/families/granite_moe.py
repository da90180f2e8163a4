"""Granite 3 MoE: a Granite 3 with a mixture of experts in each layer."""

from quatrain.checkpoint.families import granite, weighted_experts
from quatrain.checkpoint.families.family import (
    Family,
    GgufReading,
    HuggingFaceReading,
    Params,
    sizes,
)
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.tensors.experts import experts_apart

_DENSE = granite.GRANITE.hugging_face
# The names on the hub, which transformers 5 renames.
_ON_THE_HUB = {
    "input_linear.weight": "experts.gate_up_proj",
    "output_linear.weight": "experts.down_proj",
    "router.layer.weight": "router.weight",
}


def params(fields: Fields) -> Params:
    """As `HuggingFaceReading.params`: those of the dense model, and its mixture."""
    mixture = weighted_experts.hugging_face_params(fields, normalized=True)
    return _DENSE.params(fields) | mixture


def tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    """As `HuggingFaceReading.tensors`: each expert's matrices apart."""
    names = {}
    for name in stored:
        module, mixture, part = name.rpartition(".block_sparse_moe.")
        names[name] = f"{module}{mixture}{_ON_THE_HUB.get(part, part)}"
    return experts_apart(stored.renamed(names), fields.source)


def _gguf_params(metadata: GgufMetadata) -> Params:
    """A file with a shared expert is of a granitemoeshared, which llama.cpp calls so too."""
    shared = weighted_experts.has_shared_gguf(metadata)
    mixture = weighted_experts.gguf_params(metadata, normalized=True, shared=shared, gated=False)
    return granite.gguf_params(metadata) | mixture


GRANITE_MOE = Family(
    hugging_face=HuggingFaceReading(
        model_type="granitemoe",
        defaults={**granite.MIXTURE_DEFAULTS, "num_local_experts": 8, "num_experts_per_tok": 2},
        sizes=sizes(4096, 11008, 32),
        params=params,
        names=weighted_experts.names("block_sparse_moe", router="router"),
        tensors=tensors,
    ),
    gguf=GgufReading(
        "granitemoe",
        half_split=False,
        params=_gguf_params,
        names={**weighted_experts.GGUF_NAMES, **weighted_experts.GGUF_SHARED_NAMES},
    ),
)
