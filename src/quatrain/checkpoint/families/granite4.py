"""Granite 4: a Granite 3 with state spaces (Mamba-2) instead of attention in most layers (H), or in
none, and a feed-forward for every token beside experts (H Tiny and Small), or alone."""

from quatrain.checkpoint.families import granite, granite_moe, state_spaces, weighted_experts
from quatrain.checkpoint.families.family import (
    Family,
    GgufReading,
    HuggingFaceReading,
    Params,
)
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.tensors.fused_rows import rows_apart
from quatrain.checkpoint.hugging_face.tensors.tensor_names import gated_names
from quatrain.checkpoint.nth_layers import FULL

MAMBA = "mamba"
# As the releases have them and as transformers renames them.
_KINDS = {
    "attention": FULL, FULL: FULL, MAMBA: MAMBA, "linear_attention": MAMBA,
}  # fmt: skip


def _layer_types(fields: Fields) -> list[str]:
    kinds, layers = fields.get("layer_types"), fields.layer_count()
    if kinds is None:
        return [MAMBA] * layers
    if (
        not isinstance(kinds, list)
        or len(kinds) != layers
        or any(not isinstance(kind, str) or kind not in _KINDS for kind in kinds)
    ):
        expected = f"{layers} of 'attention' and 'mamba'; other types are not implemented"
        raise fields.refusal("layer_types", expected)
    return [_KINDS[kind] for kind in kinds]


def _has_experts(fields: Fields) -> bool:
    return fields.integer("num_local_experts", least=0) > 0


def _params(fields: Fields) -> Params:
    rotated = fields.get("position_embedding_type")
    if rotated not in (None, "rope", "nope"):
        raise fields.refusal("position_embedding_type", "'rope', 'nope' or null")
    kinds = _layer_types(fields)
    params = granite.GRANITE.hugging_face.params(fields) | {
        "hidden_dim": fields.integer("shared_intermediate_size"),
        "no_rope_layer_interval": None if rotated == "rope" else 1,
    }
    if MAMBA in kinds:
        params |= state_spaces.params_of_expanded(fields) | {
            "layer_types": kinds,
            "attention_output_bias": fields.flag("attention_bias"),
        }
    if _has_experts(fields):
        params |= weighted_experts.hugging_face_params(fields, normalized=True) | {
            "use_shared_expert": True,
            "moe_hidden_dim": fields.integer("intermediate_size"),
            "shared_hidden_dim": fields.integer("shared_intermediate_size"),
        }
    return params


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    hidden = fields.integer("shared_intermediate_size")
    if _has_experts(fields):
        stored = granite_moe.tensors(stored, fields)
    shared = {"input_linear": {"gate_proj": hidden, "up_proj": hidden}}
    stored = rows_apart(stored, shared, fields.source)
    if MAMBA in _layer_types(fields):
        stored = state_spaces.tensors(
            stored, state_spaces.params_of_expanded(fields), fields.source
        )
    if not _has_experts(fields):
        return stored
    names = {name: name.replace(".shared_mlp.", ".shared_expert.") for name in stored}
    return stored.renamed(names)


def _gguf_params(metadata: GgufMetadata) -> Params:
    """Layers without KV heads are those of state spaces; what says otherwise whether a rotary
    embedding was trained further says here whether there is one."""
    if metadata.get("logit_scale") is None:
        raise metadata.refuse(
            "logit_scale",
            "expected a number, as in files of Granite 4; of a Bamba give the Hugging Face folder",
        )
    heads, attends = metadata.attending_layers()
    rotated = metadata.get("rope.scaling.finetuned")
    params = granite.gguf_params(metadata) | state_spaces.gguf_params(metadata)
    if metadata.number("expert_count", 0):
        params |= weighted_experts.gguf_params(metadata, normalized=True, shared=True)
        params["use_shared_expert_gate"] = False
    return params | {
        "n_kv_heads": heads,
        "layer_types": [FULL if each else MAMBA for each in attends],
        "attention_qkv_bias": metadata.has_tensors("attn_q.bias"),
        "attention_output_bias": metadata.has_tensors("attn_output.bias"),
        "no_rope_layer_interval": None if rotated in (None, True) else 1,
    }


GRANITE4 = Family(
    hugging_face=HuggingFaceReading(
        model_type="granitemoehybrid",
        defaults={
            **granite.MIXTURE_DEFAULTS,
            **state_spaces.DEFAULTS,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "intermediate_size": 11008,
            "shared_intermediate_size": 1024,
        },
        aliases={"layers_block_type": "layer_types"},
        params=_params,
        names={
            **gated_names("shared_mlp", down="output_linear"),
            **weighted_experts.shared_names("shared_expert", down="output_linear"),
            **weighted_experts.names("block_sparse_moe", router="router"),
            **state_spaces.NAMES,
        },
        tensors=_tensors,
    ),
    gguf=GgufReading(
        "granitehybrid",
        half_split=False,
        params=_gguf_params,
        names={
            **weighted_experts.GGUF_NAMES,
            **weighted_experts.GGUF_SHARED_NAMES,
            **state_spaces.GGUF_NAMES,
        },
        fused=state_spaces.gguf_fused,
        filters=state_spaces.FILTERS,
        tensors=state_spaces.gguf_tensors,
    ),
)
