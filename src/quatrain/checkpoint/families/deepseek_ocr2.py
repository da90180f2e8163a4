"""The text model of DeepSeek OCR 2: a Llama with a mixture of experts in all but the first layers,
picked by a softmax, and experts for every token, which are one wider one."""

from quatrain.checkpoint.families import deepseek, weighted_experts
from quatrain.checkpoint.families.family import Biases, Family, HuggingFaceReading, Params, sizes
from quatrain.checkpoint.hugging_face.fields import Fields


def _params(fields: Fields) -> Params:
    deepseek.require_greedy(fields)
    return deepseek.mixture(fields, _dense_layers(fields), normalized=False)


def _dense_layers(fields: Fields) -> int:
    kinds, layers = fields.get("mlp_layer_types"), fields.layer_count()
    dense = kinds.count("dense") if isinstance(kinds, list) else 0
    if kinds != ["dense"] * dense + ["sparse"] * (layers - dense) or dense == layers:
        expected = f"{layers} of 'dense' and then 'sparse': other patterns are not implemented"
        raise fields.refusal("mlp_layer_types", expected)
    return dense


DEEPSEEK_OCR2 = Family(
    HuggingFaceReading(
        model_type="deepseek_ocr2_text",
        defaults={
            "num_attention_heads": 32,
            "vocab_size": 102400,
            "hidden_act": "silu",
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "n_routed_experts": 64,
            "n_shared_experts": 2,
            "routed_scaling_factor": 1.0,
            "topk_method": "greedy",
            "moe_intermediate_size": 1407,
        },
        sizes=sizes(4096, 11008, 32),
        params=_params,
        names={
            **weighted_experts.names("mlp"),
            **weighted_experts.shared_names("mlp.shared_experts"),
        },
        tensors=weighted_experts.tensors,
        aliases={"num_experts": "n_routed_experts"},
        biases=Biases("attention_bias", "attention_bias"),
    )
)
