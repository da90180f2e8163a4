"""LFM2 and LFM2.5, dense, and the text model of LFM2-VL: gated short convolutions in most layers,
attention with QK norm in the others."""

from quatrain.checkpoint.families.family import (
    NO_BIASES,
    Family,
    GgufReading,
    HuggingFaceReading,
    Params,
)
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.layer_types import FULL, layer_types
from quatrain.checkpoint.hugging_face.tensors.fused_rows import rows_apart
from quatrain.multiples import up_to

CONV = "conv"
_GATES = ("B_proj", "C_proj", "x_proj")  # one matrix in the files


def convolutions(fields: Fields) -> Params:
    """The fields of params.json that config.json states alike for all that have convolutions.

    Raises `InputError` if these have a bias."""
    if fields.flag("conv_bias"):
        raise fields.refusal("conv_bias", "false: convolutions with a bias are not implemented")
    return {
        "conv_L_cache": fields.integer("conv_L_cache", least=2),
        "use_qk_norm": True,
    }


def _params(fields: Fields) -> Params:
    return convolutions(fields) | {
        "hidden_dim": _hidden_dim(fields),
        "layer_types": _layer_types(fields),
    }


def _hidden_dim(fields: Fields) -> int:
    """As in `Lfm2MLP` of transformers."""
    hidden = fields.integer("intermediate_size")
    if not fields.flag("block_auto_adjust_ff_dim"):
        return hidden
    hidden = int(2 * hidden / 3)
    multiplier = fields.number_or_none("block_ffn_dim_multiplier")
    if multiplier is None:
        return hidden
    multiple = fields.integer("block_multiple_of")
    return up_to(int(multiplier * hidden), multiple)


def _layer_types(fields: Fields) -> list[str]:
    kinds = layer_types(fields, CONV)
    if kinds is not None:
        return kinds
    attending = fields.integers_or_none("full_attn_idxs")
    attends = [attending is None or index in attending for index in range(fields.layer_count())]
    return [FULL if each else CONV for each in attends]


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    width = fields.integer("hidden_size")
    return rows_apart(stored, {"in_proj": dict.fromkeys(_GATES, width)}, fields.source)


def _gguf_params(metadata: GgufMetadata) -> Params:
    """Layers without KV heads are those of convolutions."""
    heads, attends = metadata.attending_layers()
    return {
        "n_kv_heads": heads,
        "layer_types": [FULL if each else CONV for each in attends],
        "conv_L_cache": metadata.count("shortconv.l_cache"),
        "use_qk_norm": True,
    }


def _gguf_fused(metadata: GgufMetadata) -> dict[str, dict[str, int]]:
    return {"in_proj": dict.fromkeys(_GATES, metadata.count("embedding_length"))}


LFM2 = Family(
    hugging_face=HuggingFaceReading(
        model_type="lfm2",
        biases=NO_BIASES,
        defaults={
            "intermediate_size": 12288,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 65536,
            "max_position_embeddings": 128_000,
            "norm_eps": 1e-5,
            "rope_theta": 1_000_000.0,
            "conv_L_cache": 3,
            "block_multiple_of": 256,
            "block_ffn_dim_multiplier": 1.0,
            "block_auto_adjust_ff_dim": True,
        },
        sizes={"hidden_size": 2560, "num_hidden_layers": 32},
        aliases={"block_ff_dim": "intermediate_size", "tie_embedding": "tie_word_embeddings"},
        params=_params,
        names={
            "model.embedding_norm": "norm",
            "operator_norm": "attention_norm",
            "ffn_norm": "ffn_norm",
            "self_attn.out_proj": "attention.wo",
            "self_attn.q_layernorm": "attention.q_norm_fn",
            "self_attn.k_layernorm": "attention.k_norm_fn",
            "feed_forward.w1": "feed_forward.w1",
            "feed_forward.w2": "feed_forward.w2",
            "feed_forward.w3": "feed_forward.w3",
            "conv.conv": "conv.conv",
            "conv.out_proj": "conv.out_proj",
            **{f"conv.{gate}": f"conv.{gate}" for gate in _GATES},
        },
        tensors=_tensors,
        activations={None: "silu"},
        tied=True,
    ),
    gguf=GgufReading(
        "lfm2",
        half_split=True,
        params=_gguf_params,
        names={
            "token_embd_norm": "norm",
            "shortconv.conv": "conv.conv",
            "shortconv.out_proj": "conv.out_proj",
            **{f"shortconv.{gate}": f"conv.{gate}" for gate in _GATES},
        },
        fused=_gguf_fused,
        filters=frozenset({"shortconv.conv"}),
    ),
)
