"""GPT-2: learned positions, layer norms, a feed-forward without a gate, a bias of each linear; its
matrices are stored transposed, those of queries, keys and values in one."""

from quatrain.checkpoint.families.family import (
    APPROXIMATE_GELU,
    Biases,
    Family,
    GgufReading,
    HuggingFaceReading,
    Params,
)
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.tensors.fused_rows import rows_apart

_MASKS = (".self_attn.bias", ".self_attn.masked_bias")
_UNLIKE_LLAMA = {
    "no_rope_layer_interval": 1,
    "norm_type": "layer",
    "norm_bias": True,
    "feed_forward_gate": False,
}
ALIASES = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_positions": "max_position_embeddings",
    "n_inner": "intermediate_size",
}
# Behind "transformer.", or of a model that was saved without its output layer.
ON_HUB = {
    "transformer.": "",
    "wte.": "model.embed_tokens.",
    "wpe.": "model.embed_positions.",
    "ln_f.": "model.norm.",
    "h.": "model.layers.",
    ".ln_1.": ".input_layernorm.",
    ".ln_2.": ".post_attention_layernorm.",
    ".attn.attention.": ".self_attn.",
    ".attn.": ".self_attn.",
}
NAMES = {
    "model.embed_positions": "positions",
    "self_attn.c_proj": "attention.wo",
    "mlp.c_fc": "feed_forward.w1",
    "mlp.c_proj": "feed_forward.w2",
}
GGUF_NAMES = {"position_embd": "positions", "ffn_up": "feed_forward.w1"}


def params_with_positions(fields: Fields) -> Params:
    """Fields of params.json of a GPT-2 or a model like it, config.json's being `fields`."""
    for name in ("add_cross_attention", "scale_attn_by_inverse_layer_idx"):
        if fields.flag(name):
            raise fields.refusal(name, "false: what it adds to attention is not implemented")
    heads, hidden = fields.integer("num_attention_heads"), fields.integer("hidden_size")
    scaled = "scale_attn_weights" not in fields or fields.flag("scale_attn_weights")
    return _UNLIKE_LLAMA | {
        "n_kv_heads": heads,
        "head_dim": hidden // heads,
        "hidden_dim": fields.integer_or_none("intermediate_size") or 4 * hidden,
        "learned_positions": fields.integer("max_position_embeddings"),
        **({} if scaled else {"attention_multiplier": 1.0}),
    }


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    rows = fields.integer("hidden_size")
    parts = {"q_proj": rows, "k_proj": rows, "v_proj": rows}
    return rows_apart(stored, {"c_attn": parts}, fields.source)


def causal_masks(stored: LazyTensors, fields: Fields) -> set[str]:
    """What earlier versions of transformers saved of its attention: masks."""
    return {name for name in stored if name.endswith(_MASKS)}


def gguf_params_with_positions(metadata: GgufMetadata) -> Params:
    """The same of a GGUF file."""
    return _UNLIKE_LLAMA | {
        "learned_positions": metadata.trained_context(),
        "act_fn": "gelu_approx",
    }


GPT2 = Family(
    hugging_face=HuggingFaceReading(
        model_type="gpt2",
        biases=Biases(True, True, True),
        defaults={
            "vocab_size": 50257,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
            "scale_attn_weights": True,
        },
        params=params_with_positions,
        rope=lambda fields: {},
        names=NAMES,
        on_hub=ON_HUB,
        transposed=("self_attn.c_attn", "self_attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
        tensors=_tensors,
        unused=causal_masks,
        aliases=ALIASES,
        activations={"gelu": "gelu", "relu": "relu", **APPROXIMATE_GELU},
        tied=True,
    ),
    gguf=GgufReading(
        "gpt2",
        half_split=True,
        params=gguf_params_with_positions,
        names=GGUF_NAMES,
        fused=GgufMetadata.fused_attention,
        biased=True,
    ),
)
