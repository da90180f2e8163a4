"""Mixtral: a Mistral with a mixture of experts in each layer."""

from quatrain.checkpoint.families import weighted_experts
from quatrain.checkpoint.families.family import NO_BIASES, Family, HuggingFaceReading, Params, sizes
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.layer_types import window_of_all


def _params(fields: Fields) -> Params:
    mixture = weighted_experts.hugging_face_params(fields, normalized=True)
    return window_of_all(fields) | mixture


# A GGUF file of one calls it a llama, and is read as such.
MIXTRAL = Family(
    HuggingFaceReading(
        "mixtral",
        biases=NO_BIASES,
        defaults={
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 32000,
            "hidden_act": "silu",
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1000000.0,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
        },
        sizes=sizes(4096, 14336, 32),
        aliases={"num_experts": "num_local_experts"},
        params=_params,
        # The names in transformers 5, and on the hub.
        names=weighted_experts.names("mlp")
        | weighted_experts.names("block_sparse_moe")
        | {
            f"block_sparse_moe.experts.{part}": f"feed_forward.experts.{part}"
            for part in ("w1", "w2", "w3")
        },
        tensors=weighted_experts.tensors,
    )
)
