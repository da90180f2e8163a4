"""BitNet b1.58: norms of what attention's output and the feed-forward's last linear read, a squared
ReLU as gate. Its ternary weights are read by `quatrain.checkpoint.quantizers.bitnet`."""

from quatrain.checkpoint.families.family import Family, GgufReading, HuggingFaceReading, Params
from quatrain.checkpoint.gguf.metadata import GgufMetadata

_NORMS = {"use_sub_norms": True}
_ACTIVATIONS: dict[str | None, str] = {"relu2": "relu2", "silu": "silu"}


def _gguf_params(metadata: GgufMetadata) -> Params:
    """Files without an activation are those of the first models, which have SiLU."""
    stated = metadata.text("hidden_activation") or "silu"
    if stated not in _ACTIVATIONS:
        raise metadata.refuse("hidden_activation", "expected relu2 or silu")
    return _NORMS | {"act_fn": _ACTIVATIONS[stated]}


BITNET = Family(
    hugging_face=HuggingFaceReading(
        model_type="bitnet",
        defaults={
            "num_attention_heads": 20,
            "num_key_value_heads": 5,
            "vocab_size": 128256,
            "hidden_act": "relu2",
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5,
            "rope_theta": 500000.0,
        },
        params=lambda fields: _NORMS,
        names={
            "self_attn.attn_sub_norm": "attention.sub_norm",
            "mlp.ffn_sub_norm": "feed_forward.sub_norm",
        },
        activations=_ACTIVATIONS,
    ),
    gguf=GgufReading(
        "bitnet",
        half_split=True,
        params=_gguf_params,
        names={"attn_sub_norm": "attention.sub_norm", "ffn_sub_norm": "feed_forward.sub_norm"},
    ),
)
