"""ERNIE 4.5 MoE: an ERNIE 4.5 with a mixture of experts in all but the first layers, which are
picked by a softmax with a bias for each, and experts for every token, which are one wider one."""

from quatrain.checkpoint.families import ernie4_5, weighted_experts
from quatrain.checkpoint.families.family import (
    Family,
    GgufReading,
    HuggingFaceReading,
    Params,
)
from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.tensors.experts import experts_apart

_DENSE = ernie4_5.ERNIE4_5.hugging_face
_BIAS = "moe_statics.e_score_correction_bias"
_LEAST_SUM = 1e-6  # of the scores of those that are picked, which are divided by it


def _params(fields: Fields) -> Params:
    if fields.flag("use_bias"):
        raise fields.refusal("use_bias", "false: experts with biases are not implemented")
    if fields.number("moe_norm_min") > _LEAST_SUM:
        raise fields.refusal("moe_norm_min", f"at most {_LEAST_SUM}")
    last, end = fields.layer_count() - 1, fields.get("moe_layer_end_index")
    if end not in (-1, last):
        raise fields.refusal("moe_layer_end_index", f"-1 or {last}, the last layer")
    width = fields.integer("moe_intermediate_size")
    shared = fields.integer("moe_num_shared_experts", least=0)
    counts = {
        "num_experts": fields.integer("moe_num_experts"),
        "num_experts_per_tok": fields.integer("moe_k"),
    }
    mixture = weighted_experts.hugging_face_params(fields | counts, normalized=True)
    dense = fields.integer("moe_layer_start_index", least=0)
    return (
        _DENSE.params(fields)
        | mixture
        | _picked(dense, fields.integer("moe_layer_interval"))
        | {
            "moe_hidden_dim": width,
            **(weighted_experts.SHARED | {"shared_hidden_dim": shared * width} if shared else {}),
        }
    )


def _picked(dense: int, interval: int) -> Params:
    return {
        "use_expert_bias": True,
        "num_dense_layers": dense,
        "interleave_moe_layer_step": interval,
    }


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    """The bias of a layer's experts, [1, experts], as [experts]."""
    names = {}
    for name in stored:
        layer, _, part = name.rpartition(f".{_BIAS}")
        found = layer and not part
        names[name] = f"{layer.removesuffix('.gate')}.expert_bias.bias" if found else name
    return experts_apart(stored.renamed(names).each(_flat_bias), fields.source)


def _flat_bias(name: str, tensor: StoredTensor) -> StoredTensor:
    if not name.endswith(".expert_bias.bias") or tensor.shape[:1] != (1,):
        return tensor
    return tensor.changed(lambda bias: bias[0], tensor.shape[1:])


def _predicts_further(stored: LazyTensors, fields: Fields) -> set[str]:
    """The tensors of what predicts several tokens at once."""
    return {name for name in stored if name.startswith("model.mtp_")}


def _gguf_params(metadata: GgufMetadata) -> Params:
    shared = weighted_experts.has_shared_gguf(metadata)
    mixture = weighted_experts.gguf_params(metadata, normalized=True, shared=shared, gated=False)
    dense = metadata.number("leading_dense_block_count", 0)
    interval = metadata.count("interleave_moe_layer_step", 1)
    return _DENSE.params(Fields({}, "")) | mixture | _picked(dense, interval)


ERNIE4_5_MOE = Family(
    hugging_face=HuggingFaceReading(
        model_type="ernie4_5_moe",
        biases=_DENSE.biases,
        defaults={
            "hidden_size": 2560,
            "intermediate_size": 12288,
            "num_hidden_layers": 28,
            "num_attention_heads": 20,
            "num_key_value_heads": 4,
            "vocab_size": 103424,
            "hidden_act": "silu",
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5,
            "rope_theta": 500000.0,
            "moe_intermediate_size": 1536,
            "moe_k": 6,
            "moe_num_experts": 64,
            "moe_num_shared_experts": 2,
            "moe_layer_start_index": 1,
            "moe_layer_end_index": -1,
            "moe_layer_interval": 1,
            "moe_norm_min": 1e-12,
        },
        aliases={"num_experts": "moe_num_experts", "num_experts_per_tok": "moe_k"},
        params=_params,
        names={
            **weighted_experts.names("mlp"),
            "mlp.expert_bias": "feed_forward.expert_bias",
            **weighted_experts.shared_names("mlp.shared_experts"),
        },
        tensors=_tensors,
        unused=_predicts_further,
        tied=True,
    ),
    gguf=GgufReading(
        "ernie4_5-moe",
        half_split=False,
        params=_gguf_params,
        names={
            **weighted_experts.GGUF_NAMES,
            **weighted_experts.GGUF_SHARED_NAMES,
            "exp_probs_b": "feed_forward.expert_bias",
        },
    ),
)
