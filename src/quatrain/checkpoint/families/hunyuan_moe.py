"""HunYuan MoE: a HunYuan with a mixture of experts in each layer, and an expert for every token."""

from quatrain.checkpoint.families import hunyuan, weighted_experts
from quatrain.checkpoint.families.family import Family, GgufReading, HuggingFaceReading, Params
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import Fields

# What transformers does not read, with what it computes.
_FIXED = {"num_shared_expert": 1, "moe_layer_num_skipped": 0, "use_cla": False}


def _params(fields: Fields) -> Params:
    counts = {name: fields.integer_of_layers(name) for name in ("num_experts", "moe_topk")}
    width = fields.integer_of_layers("intermediate_size")
    for name, fixed in (_FIXED | {"moe_intermediate_size": width}).items():
        stated = fields.get(name)
        if stated not in (None, fixed) and stated != [fixed] * fields.layer_count():
            expected = f"{fixed} in every layer; other values are not implemented"
            raise fields.refusal(name, expected)
    counted = fields | counts | {"num_experts_per_tok": counts["moe_topk"]}
    mixture = weighted_experts.hugging_face_params(counted, normalized=True)
    shared = weighted_experts.SHARED | {"shared_hidden_dim": width}
    return hunyuan.AFTER_ROPE | mixture | shared


def _gguf_params(metadata: GgufMetadata) -> Params:
    metadata.get("expert_shared_count")
    mixture = weighted_experts.gguf_params(metadata, normalized=True, shared=True, gated=False)
    return hunyuan.AFTER_ROPE | mixture


HUNYUAN_MOE = Family(
    hugging_face=HuggingFaceReading(
        model_type="hunyuan_v1_moe",
        defaults={
            **hunyuan.HUNYUAN.hugging_face.defaults,
            "num_experts": 1,
            "moe_topk": 1,
        },
        aliases={"num_experts_per_tok": "moe_topk", "num_local_experts": "num_experts"},
        params=_params,
        rope=hunyuan.alpha_rope,
        names={
            **hunyuan.HEAD_NORMS,
            **weighted_experts.names("mlp", router="gate.wg"),
            **weighted_experts.shared_names("mlp.shared_mlp"),
        },
        tensors=weighted_experts.tensors,
    ),
    # A file holds the base as alpha left it.
    gguf=GgufReading(
        "hunyuan-moe",
        half_split=True,
        params=_gguf_params,
        names={**weighted_experts.GGUF_NAMES, **weighted_experts.GGUF_SHARED_NAMES},
    ),
)
