"""GPT-NeoX and Pythia: layer norms, attention and feed-forward in parallel, each behind a norm of
its own, a quarter of each head rotated, a feed-forward without a gate, and a bias of each linear.
"""

from functools import partial

from quatrain.checkpoint.families.family import (
    APPROXIMATE_GELU,
    Biases,
    Family,
    HuggingFaceReading,
    Params,
)
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.rope.rope_parameters import partial_rope_params
from quatrain.checkpoint.hugging_face.tensors.fused_rows import rows_of_heads_apart

_MASKS = (".self_attn.bias", ".self_attn.masked_bias")


def _params(fields: Fields) -> Params:
    heads, parallel = fields.integer("num_attention_heads"), fields.flag("use_parallel_residual")
    return {
        # Its class reads neither from config.json.
        "n_kv_heads": heads,
        "head_dim": fields.integer("hidden_size") // heads,
        "norm_type": "layer",
        "norm_bias": True,
        "parallel_residual": parallel,
        "parallel_ffn_norm": parallel,
        "feed_forward_gate": False,
        "attention_output_bias": fields.flag("attention_bias"),
    }


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    """Queries, keys and values of a head lie side by side in one matrix."""
    heads = fields.integer("num_attention_heads")
    width = fields.integer("hidden_size") // heads
    parts = {"q_proj": width, "k_proj": width, "v_proj": width}
    return rows_of_heads_apart(stored, "query_key_value", parts, heads, fields.source)


def _causal_masks(stored: LazyTensors, fields: Fields) -> set[str]:
    return {name for name in stored if name.endswith(_MASKS)}


GPT_NEOX = Family(
    hugging_face=HuggingFaceReading(
        model_type="gpt_neox",
        biases=Biases("attention_bias", "attention_bias", True),
        defaults={
            "num_attention_heads": 64,
            "vocab_size": 50432,
            "hidden_act": "gelu",
            "max_position_embeddings": 2048,
            "layer_norm_eps": 1e-5,
            "use_parallel_residual": True,
            "attention_bias": True,
            "rope_theta": 10000.0,
        },
        params=_params,
        rope=partial(partial_rope_params, rotated=0.25),
        names={
            "self_attn.dense": "attention.wo",
            "mlp.dense_h_to_4h": "feed_forward.w1",
            "mlp.dense_4h_to_h": "feed_forward.w2",
            "model.final_layer_norm": "norm",
        },
        on_hub={
            "gpt_neox.": "model.",
            "model.embed_in.": "model.embed_tokens.",
            "embed_out.": "lm_head.",
            ".attention.": ".self_attn.",
        },
        tensors=_tensors,
        unused=_causal_masks,
        aliases={"rotary_emb_base": "rope_theta", "rotary_pct": "partial_rotary_factor"},
        activations={"gelu": "gelu", **APPROXIMATE_GELU},
    ),
)
