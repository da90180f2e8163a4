"""AFMoE (Arcee's Trinity): norms before and after attention and feed-forward, gated attention, a
window in three of four layers and no rotary embedding in the others, and in all but the first
layers a mixture of experts, picked by sigmoids with a bias for each, with experts for every token,
which are one wider one."""

from quatrain.checkpoint.families import weighted_experts
from quatrain.checkpoint.families.family import Family, GgufReading, HuggingFaceReading, Params
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.gguf.tensor_names import POST_NORMS
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.layer_types import window_or_no_rope

_BIAS = ".mlp.expert_bias"
_SIGMOID = 2  # of llama.cpp's gating functions
_FIXED = {
    "post_attention_norm": True,
    "post_ffn_norm": True,
    "use_attn_o_gate": True,
    "router_scores": "sigmoid",
    "use_expert_bias": True,
}
# What transformers does not read, with what it computes.
_STATED = {"route_norm": True, "score_func": "sigmoid", "n_group": 1, "topk_group": 1}


def _params(fields: Fields) -> Params:
    for name, fixed in _STATED.items():
        if fields.get(name) not in (None, fixed):
            raise fields.refusal(name, f"{fixed!r}; other values are not implemented")
    width = fields.integer("moe_intermediate_size")
    scaled = fields.integer("hidden_size") ** 0.5 if fields.flag("mup_enabled") else 1.0
    dense = fields.integer("num_dense_layers", least=0)
    if dense >= fields.layer_count():
        raise fields.refusal("num_dense_layers", f"less than all {fields.layer_count()} layers")
    return (
        weighted_experts.hugging_face_params(fields, normalized=True)
        | _FIXED
        | weighted_experts.SHARED
        | window_or_no_rope(fields, fields.integer("global_attn_every_n_layers"))
        | {
            "embedding_scale_factor": scaled,
            "num_dense_layers": dense,
            "moe_hidden_dim": width,
            "shared_hidden_dim": fields.integer("num_shared_experts") * width,
            "routed_scaling_factor": fields.number("route_scale"),
        }
    )


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    names = {name: f"{name}.bias" if name.endswith(_BIAS) else name for name in stored}
    return weighted_experts.tensors(stored.renamed(names), fields)


def _gguf_params(metadata: GgufMetadata) -> Params:
    if metadata.number("expert_gating_func", _SIGMOID) != _SIGMOID:
        raise metadata.refuse("expert_gating_func", f"expected {_SIGMOID}, sigmoids")
    normalized = bool(metadata.get("expert_weights_norm"))
    shared = metadata.count("expert_shared_count")
    width = metadata.count("expert_feed_forward_length")
    return (
        weighted_experts.gguf_params(metadata, normalized, shared=True, gated=False, scaled=True)
        | _FIXED
        | metadata.windows_or_no_rope()
        | {
            "embedding_scale_factor": metadata.count("embedding_length") ** 0.5,
            "num_dense_layers": metadata.number("leading_dense_block_count", 0),
            "shared_hidden_dim": shared * width,
        }
    )


AFMOE = Family(
    hugging_face=HuggingFaceReading(
        model_type="afmoe",
        defaults={
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "head_dim": 128,
            "vocab_size": 200192,
            "hidden_act": "silu",
            "max_position_embeddings": 16384,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "sliding_window": 1024,
            "global_attn_every_n_layers": 4,
            "moe_intermediate_size": 1408,
            "num_dense_layers": 1,
            "num_experts": 64,
            "num_experts_per_tok": 6,
            "num_shared_experts": 2,
            "route_scale": 1.0,
        },
        params=_params,
        names={
            "self_attn.gate_proj": "attention.og",
            "post_attention_layernorm": "post_attention_norm",
            "pre_mlp_layernorm": "ffn_norm",
            "post_mlp_layernorm": "post_ffn_norm",
            **weighted_experts.names("mlp", router="router.gate"),
            **weighted_experts.shared_names("mlp.shared_experts"),
            "mlp.expert_bias": "feed_forward.expert_bias",
        },
        tensors=_tensors,
    ),
    gguf=GgufReading(
        "afmoe",
        half_split=True,
        params=_gguf_params,
        names={
            **weighted_experts.GGUF_NAMES,
            **weighted_experts.GGUF_SHARED_NAMES,
            **POST_NORMS,
            "attn_gate": "attention.og",
            "exp_probs_b": "feed_forward.expert_bias",
        },
    ),
)
