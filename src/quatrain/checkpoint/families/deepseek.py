"""DeepSeek V2 Lite, and models like V3 whose experts are not in groups (Moonlight): latent
attention and a mixture of experts in all but the first layers, with experts for every token, which
are one wider one. V3 picks by sigmoids with a bias for each expert."""

from quatrain.checkpoint.families import weighted_experts
from quatrain.checkpoint.families.family import Family, HuggingFaceReading, Params
from quatrain.checkpoint.families.latent.hugging_face import (
    DEFAULTS,
    NAMES,
    heads_apart,
    latent_params,
    latent_rope,
)
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.tensors.further_layers import further_layers

_BIAS = ".mlp.gate.e_score_correction_bias"


def mixture(fields: Fields, dense: int, normalized: bool) -> Params:
    """The fields of params.json of experts in all but the first `dense` layers. `normalized`: as of
    `weighted_experts`. Raises `InputError` for experts with biases."""
    if fields.flag("mlp_bias"):
        raise fields.refusal("mlp_bias", "false: experts with biases are not implemented")
    if dense >= fields.layer_count():
        return {}
    width = fields.integer("moe_intermediate_size")
    experts = fields.integer("n_routed_experts")
    return (
        weighted_experts.hugging_face_params(fields | {"num_experts": experts}, normalized)
        | weighted_experts.SHARED
        | {
            "shared_hidden_dim": fields.integer("n_shared_experts") * width,
            "moe_hidden_dim": width,
            "num_dense_layers": dense,
            "routed_scaling_factor": fields.number("routed_scaling_factor"),
        }
    )


def require_greedy(fields: Fields) -> None:
    """Raises `InputError` where a router chooses among groups of experts, not among all at once."""
    if fields.get("topk_method") != "greedy":
        expected = "'greedy': experts that are chosen in groups are not implemented"
        raise fields.refusal("topk_method", expected)


def _params(fields: Fields) -> Params:
    require_greedy(fields)
    dense = fields.integer("first_k_dense_replace", least=0)
    # Of norm_topk_prob transformers reads nothing.
    if fields.flag("norm_topk_prob"):
        raise fields.refusal("norm_topk_prob", "false: true is not implemented for this family")
    return latent_params(fields) | {"use_hf_rope": False} | mixture(fields, dense, False)


def _params3(fields: Fields) -> Params:
    for name in ("n_group", "topk_group"):
        if fields.get(name) != 1:
            expected = "1: experts that are chosen in groups are not implemented"
            raise fields.refusal(name, expected)
    dense = fields.integer("first_k_dense_replace", least=0)
    experts = mixture(fields, dense, fields.flag("norm_topk_prob"))
    picked = {"router_scores": "sigmoid", "use_expert_bias": True} if experts else {}
    halves = {"use_hf_rope": not fields.flag("rope_interleave")}
    return latent_params(fields) | halves | experts | picked


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    return weighted_experts.tensors(heads_apart(stored, fields), fields)


def _tensors3(stored: LazyTensors, fields: Fields) -> LazyTensors:
    names = {name: name.replace(_BIAS, ".mlp.expert_bias.bias") for name in stored}
    return _tensors(stored.renamed(names), fields)


_NAMES = {
    **NAMES,
    **weighted_experts.names("mlp"),
    **weighted_experts.shared_names("mlp.shared_experts"),
}
DEEPSEEK_V2 = Family(
    HuggingFaceReading(
        model_type="deepseek_v2",
        defaults={
            **DEFAULTS,
            "num_attention_heads": 32,
            "vocab_size": 102400,
            "max_position_embeddings": 2048,
            "first_k_dense_replace": 0,
            "n_routed_experts": 64,
            "n_shared_experts": 2,
            "routed_scaling_factor": 1.0,
            "topk_method": "greedy",
            "moe_intermediate_size": 1407,
        },
        params=_params,
        rope=latent_rope,
        names=_NAMES,
        tensors=_tensors,
        aliases={"num_experts": "n_routed_experts"},
    )
)
DEEPSEEK_V3 = Family(
    HuggingFaceReading(
        model_type="deepseek_v3",
        defaults={
            **DEFAULTS,
            "num_attention_heads": 128,
            "num_key_value_heads": 128,
            "vocab_size": 129280,
            "max_position_embeddings": 4096,
            "first_k_dense_replace": 3,
            "n_routed_experts": 256,
            "n_shared_experts": 1,
            "num_experts_per_tok": 8,
            "n_group": 8,
            "topk_group": 4,
            "norm_topk_prob": True,
            "routed_scaling_factor": 2.5,
            "moe_intermediate_size": 2048,
            "rope_interleave": True,
        },
        params=_params3,
        rope=latent_rope,
        names={**_NAMES, "mlp.expert_bias": "feed_forward.expert_bias"},
        tensors=_tensors3,
        unused=further_layers,
        aliases={"num_local_experts": "n_routed_experts"},
    )
)
