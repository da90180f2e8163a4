"""MobileLLM: a Llama whose config.json calls a tied output otherwise."""

from quatrain.checkpoint.families.family import Family, HuggingFaceReading, Params
from quatrain.checkpoint.hugging_face.fields import Fields


def _params(fields: Fields) -> Params:
    if fields.flag("layer_sharing"):
        expected = "false: layers that are computed twice are not implemented"
        raise fields.refusal("layer_sharing", expected)
    return {}


MOBILELLM = Family(
    hugging_face=HuggingFaceReading(
        model_type="mobilellm",
        defaults={
            "num_attention_heads": 32,
            "vocab_size": 32000,
            "hidden_act": "silu",
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-6,
            "mlp_bias": False,
            "rope_theta": 10000.0,
        },
        aliases={"share_embedding": "tie_word_embeddings"},
        params=_params,
    ),
)
