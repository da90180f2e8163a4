"""LFM2 MoE: an LFM2 with a mixture of experts in all but the first layers, which are picked by
sigmoids with a bias for each."""

from quatrain.checkpoint.families import lfm2, weighted_experts
from quatrain.checkpoint.families.family import (
    NO_BIASES,
    Family,
    GgufReading,
    HuggingFaceReading,
    Params,
)
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.layer_types import FULL, layer_types
from quatrain.checkpoint.hugging_face.tensors.experts import experts_apart
from quatrain.checkpoint.hugging_face.tensors.tensor_names import gated_names

_DENSE, _DENSE_GGUF = lfm2.LFM2.hugging_face, lfm2.LFM2.gguf
assert _DENSE_GGUF is not None
_dense_gguf_params = _DENSE_GGUF.params
_BIAS = ".feed_forward.expert_bias"
_SIGMOID = 2  # of llama.cpp's gating functions


def _params(fields: Fields) -> Params:
    kinds = layer_types(fields, lfm2.CONV)
    if kinds is None:  # with which transformers' class computes nothing
        expected = f"{fields.layer_count()} of '{FULL}' and '{lfm2.CONV}'"
        raise fields.refusal("layer_types", expected)
    stated = lfm2.convolutions(fields) | {"layer_types": kinds}
    return stated | _experts(fields)


def _experts(fields: Fields) -> Params:
    dense = fields.integer("num_dense_layers", least=0)
    if dense >= fields.layer_count():
        return {}
    normalized = fields.flag("norm_topk_prob")
    return weighted_experts.hugging_face_params(fields, normalized) | {
        "router_scores": "sigmoid",
        "num_dense_layers": dense,
        "moe_hidden_dim": fields.integer("moe_intermediate_size"),
        "use_expert_bias": fields.flag("use_expert_bias"),
        "routed_scaling_factor": fields.number("routed_scaling_factor"),
    }


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    names = {name: f"{name}.bias" if name.endswith(_BIAS) else name for name in stored}
    return experts_apart(_DENSE.tensors(stored.renamed(names), fields), fields.source)


def _gguf_params(metadata: GgufMetadata) -> Params:
    if metadata.count("expert_gating_func") != _SIGMOID:
        raise metadata.refuse("expert_gating_func", f"expected {_SIGMOID}, sigmoids")
    mixture = weighted_experts.gguf_params(metadata, normalized=True)
    return (
        _dense_gguf_params(metadata)
        | mixture
        | {
            "router_scores": "sigmoid",
            "num_dense_layers": metadata.number("leading_dense_block_count", 0),
            "use_expert_bias": True,
        }
    )


LFM2_MOE = Family(
    hugging_face=HuggingFaceReading(
        model_type="lfm2_moe",
        biases=NO_BIASES,
        defaults={
            "hidden_size": 2048,
            "intermediate_size": 7168,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 65536,
            "max_position_embeddings": 128_000,
            "norm_eps": 1e-5,
            "rope_theta": 1_000_000.0,
            "conv_L_cache": 3,
            "moe_intermediate_size": 1792,
            "num_dense_layers": 2,
            "num_experts": 32,
            "num_experts_per_tok": 4,
            "use_expert_bias": True,
            "norm_topk_prob": True,
            "routed_scaling_factor": 1.0,
        },
        aliases={"tie_embedding": "tie_word_embeddings"},
        params=_params,
        names={
            **_DENSE.names,
            **weighted_experts.names("feed_forward"),
            **gated_names("feed_forward"),  # as MLX has them
            "feed_forward.expert_bias": "feed_forward.expert_bias",
            **{
                f"feed_forward.experts.{part}": f"feed_forward.experts.{part}"
                for part in ("w1", "w2", "w3")
            },
        },
        tensors=_tensors,
        activations={None: "silu"},
        tied=True,
    ),
    gguf=GgufReading(
        "lfm2moe",
        half_split=True,
        params=_gguf_params,
        names={
            **_DENSE_GGUF.names,
            **weighted_experts.GGUF_NAMES,
            "exp_probs_b": "feed_forward.expert_bias",
        },
        fused=_DENSE_GGUF.fused,
        filters=_DENSE_GGUF.filters,
    ),
)
