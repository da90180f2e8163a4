"""GPT-J and CodeGen: attention and feed-forward in parallel after one layer norm, adjacent pairs of
the first channels of each head rotated, a feed-forward without a gate, and a bias of its linears
and of the output."""

from quatrain.checkpoint.families import phi_1_5
from quatrain.checkpoint.families.family import (
    APPROXIMATE_GELU,
    Biases,
    Family,
    HuggingFaceReading,
    Params,
)
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.tensors.fused_rows import rows_of_heads_apart

_MASKS = (".self_attn.bias", ".self_attn.masked_bias", ".self_attn.causal_mask")
# CodeGen's matrix is laid out for so many devices, each with its own of these.
_DEVICES = 4
_DEFAULTS = {
    "vocab_size": 50400,
    "rotary_dim": 64,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
}
_ALIASES = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_positions": "max_position_embeddings",
}
_ON_HUB = {
    "transformer.wte.": "model.embed_tokens.",
    "transformer.h.": "model.layers.",
    "transformer.ln_f.": "model.norm.",
    ".ln_1.": ".input_layernorm.",
    ".attn.": ".self_attn.",
}
_NAMES = {
    "self_attn.out_proj": "attention.wo",
    "mlp.fc_in": "feed_forward.w1",
    "mlp.fc_out": "feed_forward.w2",
    "output_bias": "output_bias",
}


def _params(fields: Fields) -> Params:
    heads, hidden = fields.integer("num_attention_heads"), fields.integer("hidden_size")
    return {
        "n_kv_heads": heads,
        "head_dim": hidden // heads,
        "hidden_dim": fields.integer_or_none("n_inner") or 4 * hidden,
        "norm_type": "layer",
        "norm_bias": True,
        "parallel_residual": True,
        "feed_forward_gate": False,
        "feed_forward_bias": True,
        "output_bias": True,
    }


def _rope(fields: Fields) -> Params:
    heads, hidden = fields.integer("num_attention_heads"), fields.integer("hidden_size")
    if heads > hidden:
        raise fields.refusal("num_attention_heads", f"at most hidden_size, which is {hidden}")
    rotated = fields.integer_or_none("rotary_dim") or hidden // heads
    if rotated > hidden // heads:
        raise fields.refusal("rotary_dim", f"at most the {hidden // heads} channels of a head")
    return {"partial_rotary_factor": rotated / (hidden // heads), "use_hf_rope": False}


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    width = fields.integer("hidden_size") // _DEVICES
    parts = {"q_proj": width, "v_proj": width, "k_proj": width}
    apart = rows_of_heads_apart(stored, "qkv_proj", parts, _DEVICES, fields.source)
    return phi_1_5.with_output_bias(apart)


def _causal_masks(stored: LazyTensors, fields: Fields) -> set[str]:
    return {name for name in stored if name.endswith(_MASKS)}


def _reading(model_type: str) -> HuggingFaceReading:
    return HuggingFaceReading(
        model_type=model_type,
        biases=Biases(False, False, True),
        defaults=_DEFAULTS,
        aliases=_ALIASES,
        params=_params,
        rope=_rope,
        names=_NAMES,
        on_hub=_ON_HUB,
        tensors=_tensors,
        unused=_causal_masks,
        activations=APPROXIMATE_GELU,
    )


GPT_J = Family(_reading("gptj"))
CODEGEN = Family(_reading("codegen"))
