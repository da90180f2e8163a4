"""Latent attention in folders of the Hugging Face hub."""

from quatrain.checkpoint.families.family import Params
from quatrain.checkpoint.families.latent import heads
from quatrain.checkpoint.families.latent.heads import Heads
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.rope.rope_parameters import rope_params, rope_type
from quatrain.checkpoint.yarn import attention_scale

NAMES = {
    "self_attn.q_a_proj": "attention.wq_a",
    "self_attn.q_a_layernorm": "attention.q_norm",
    "self_attn.q_b_proj": "attention.wq_b",
    "self_attn.kv_a_proj_with_mqa": "attention.wkv_a",
    "self_attn.kv_a_layernorm": "attention.kv_norm",
    "self_attn.k_b_proj": "attention.wk_b",
    "self_attn.v_b_proj": "attention.wv_b",
}
# Of DeepSeek's classes, and those made after them.
DEFAULTS = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
}


def latent_params(fields: Fields) -> Params:
    """Fields of params.json. Raises `InputError` for what latent attention here has not."""
    if fields.flag("attention_bias"):
        expected = "false: latent attention with biases is not implemented"
        raise fields.refusal("attention_bias", expected)
    found = _heads(fields)
    if fields.integer_or_none("num_key_value_heads") not in (None, found.count):
        expected = f"num_attention_heads, {found.count}: each head has its own keys and values"
        raise fields.refusal("num_key_value_heads", expected)
    return found.params() | {
        "q_lora_rank": fields.integer_or_none("q_lora_rank") or 0,
        "attention_multiplier": _attention_multiplier(fields, found),
    }


def latent_rope(fields: Fields) -> Params:
    """The rotary embedding is as wide as the channels that it turns."""
    return rope_params(fields | {"head_dim": fields.integer("qk_rope_head_dim")})


def heads_apart(stored: LazyTensors, fields: Fields) -> LazyTensors:
    """One matrix in files, keys and values of all heads, as those of keys and of values."""
    return heads.heads_apart(stored, _heads(fields), ".self_attn.kv_b_proj", fields.source)


def _heads(fields: Fields) -> Heads:
    count = fields.integer("num_attention_heads")
    values = fields.integer_or_none("v_head_dim") or fields.integer("hidden_size") // count
    still, turning = (fields.integer(f"qk_{part}_head_dim") for part in ("nope", "rope"))
    return Heads(count, still, turning, values, fields.integer("kv_lora_rank"))


def _attention_multiplier(fields: Fields, found: Heads) -> float | None:
    """YaRN's scale of scores, if there is one (`yarn_apply_mscale` of transformers)."""
    for name in ("rope_scaling", "rope_parameters"):
        scaling = fields.object_of(name)
        if rope_type(scaling) != "default" and scaling.get("mscale_all_dim"):
            weight, factor = (scaling.number(key) for key in ("mscale_all_dim", "factor"))
            return (found.still + found.turning) ** -0.5 * attention_scale(factor, weight) ** 2
    return None
