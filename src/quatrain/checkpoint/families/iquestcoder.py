"""IQuest-Coder: a Llama with defaults of its own."""

from quatrain.checkpoint.families.family import Family, HuggingFaceReading, Params
from quatrain.checkpoint.hugging_face.fields import Fields


def _params(fields: Fields) -> Params:
    """Raises `InputError` for what its class refuses too."""
    if fields.get("clip_qkv") is not None:
        raise fields.refusal("clip_qkv", "null, as in every released IQuest-Coder")
    if fields.flag("use_sliding_window"):
        raise fields.refusal("use_sliding_window", "false, as in every released IQuest-Coder")
    return {}


IQUEST_CODER = Family(
    hugging_face=HuggingFaceReading(
        model_type="iquestcoder",
        defaults={
            "num_attention_heads": 40,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 76800,
            "hidden_act": "silu",
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5,
            "mlp_bias": False,
            "rope_theta": 10000.0,
        },
        params=_params,
    ),
)
