"""Gemma 4's text model in a folder of the Hugging Face hub."""

import re
from typing import Any

from quatrain.checkpoint.families import gemma
from quatrain.checkpoint.families.family import HuggingFaceReading, Params
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.layer_types import layer_types
from quatrain.checkpoint.hugging_face.rope.proportional_rope import proportional_rope
from quatrain.checkpoint.nth_layers import FULL, SLIDING, full_every
from quatrain.errors import InputError

_DEFAULTS = {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 30,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "vocab_size": 262144,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "sliding_window": 512,
    "vocab_size_per_layer_input": 262144,
    "hidden_size_per_layer_input": 256,
}
_GLOBAL_HEAD_DIM = 512  # where neither it nor per_layer_config is stated
_ROPE = {
    SLIDING: {"rope_type": "default", "rope_theta": 10000.0},
    FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0},
}
_OWN_KEYS = re.compile(r"model\.layers\.(\d+)\.self_attn\.(k_proj|v_proj|k_norm)\..+")
_SCALAR = re.compile(r"model\.layers\.\d+\.layer_scalar")


def _params(fields: Fields) -> Params:
    _refuse_what_is_not_implemented(fields)
    kinds = _kinds(fields)
    head_dim, kv_heads = _of_global_heads(fields, kinds)
    return {
        "embedding_scale_factor": fields.integer("hidden_size") ** 0.5,
        "attention_multiplier": 1.0,
        "use_v_norm": True,
        "post_attention_norm": True,
        "post_ffn_norm": True,
        "sliding_window": fields.integer("sliding_window"),
        "layer_types": kinds,
        "global_head_dim": head_dim,
        "n_global_kv_heads": kv_heads,
        "num_kv_shared_layers": shared_layers(fields),
        "kv_shared_by_type": True,
        "double_wide_shared_ffn": fields.flag("use_double_wide_mlp"),
        "per_layer_dim": _per_layer_dim(fields),
        "use_layer_scalar": True,
        "output_soft_cap_temp": fields.number_or_none("final_logit_softcapping"),
    }


def _per_layer_dim(fields: Fields) -> int:
    """The width of the embeddings for each layer; 0 without them."""
    if "hidden_size_per_layer_input" not in fields:
        return 0  # of Gemma 4 without towers
    width, vocabulary = (
        fields.integer(name, least=0)
        for name in ("hidden_size_per_layer_input", "vocab_size_per_layer_input")
    )
    if width and vocabulary != fields.integer("vocab_size"):
        expected = f"vocab_size, {fields['vocab_size']}"
        raise fields.refusal("vocab_size_per_layer_input", expected)
    return width


def _refuse_what_is_not_implemented(fields: Fields) -> None:
    if fields.flag("enable_moe_block"):
        raise InputError(
            f"{fields.source}: enable_moe_block is true: the model has experts whose outputs, not "
            "inputs, are weighted, which is not implemented"
        )
    if fields.get("use_bidirectional_attention") not in (None, "vision", False):
        raise fields.refusal("use_bidirectional_attention", "null or 'vision'")


def _kinds(fields: Fields) -> list[str]:
    """The last layer always attends to all tokens, as in transformers."""
    kinds = layer_types(fields) or full_every(6, fields.layer_count())
    return [*kinds[:-1], FULL]


def _of_global_heads(fields: Fields, kinds: list[str]) -> tuple[int, int | None]:
    """(the head dimension, the number of KV heads if it differs) of the layers without a window, as
    transformers 5 writes them or as releases state them."""
    by_layer = fields.object_of("per_layer_config")
    if not by_layer:
        kv_heads = fields.integer_or_none("num_global_key_value_heads")
        # In transformers the number counts only if keys are the values too.
        counts = fields.flag("attention_k_eq_v")
        head_dim = fields.integer_or_none("global_head_dim") or _GLOBAL_HEAD_DIM
        return head_dim, kv_heads if counts else None
    full = [index for index, kind in enumerate(kinds) if kind == FULL]
    # Of models with ten layers and more their numbers are written with as many digits: "05".
    by_index = {int(key): value for key, value in by_layer.items() if _is_number(key)}
    first: Any = by_index.get(full[0])
    stated = by_index == dict.fromkeys(full, first) and len(by_index) == len(by_layer)
    known = {"head_dim"}, {"head_dim", "num_key_value_heads"}
    if not stated or not isinstance(first, dict) or first.keys() not in known:
        layers = ", ".join(map(str, full))
        expected = (
            "one head_dim, and perhaps num_key_value_heads, but no other field, for the layers of "
            f"'{FULL}', {layers}"
        )
        raise fields.refusal("per_layer_config", expected)
    heads = Fields(first, fields.source)
    return heads.integer("head_dim"), heads.integer_or_none("num_key_value_heads")


def _is_number(key: str) -> bool:
    return key.isdecimal() and len(key) < 10


def shared_layers(fields: Fields) -> int:
    """How many layers, the last ones, read others' keys and values."""
    if fields.get("num_kv_shared_layers") is None:
        return 0
    return fields.integer("num_kv_shared_layers", least=0)


def unused_keys(stored: LazyTensors, fields: Fields) -> set[str]:
    """The keys and values of layers that use those of other layers; transformers drops them as
    well."""
    first = fields.layer_count() - shared_layers(fields)
    return {name for name, layer, _ in _own_keys(stored) if layer >= first}


def _own_keys(stored: LazyTensors) -> list[tuple[str, int, str]]:
    """(the name, the layer, the module) of each tensor that makes keys or values"""
    matches = filter(None, map(_OWN_KEYS.fullmatch, stored))
    return [(match[0], int(match[1]), match[2]) for match in matches]


def _unused(stored: LazyTensors, fields: Fields) -> set[str]:
    """Those, and values beside keys that are the values too."""
    as_keys, own = _layers_of_keys_as_values(fields), _own_keys(stored)
    beside = {name for name, layer, module in own if module == "v_proj" and layer in as_keys}
    return unused_keys(stored, fields) | beside


def _layers_of_keys_as_values(fields: Fields) -> set[int]:
    """The layers whose keys, before their norm and rotation, are the values too."""
    if not fields.flag("attention_k_eq_v"):
        return set()
    return {index for index, kind in enumerate(_kinds(fields)) if kind == FULL}


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    named = stored.renamed(
        {name: f"{name}.weight" if _SCALAR.fullmatch(name) else name for name in stored}
    )
    made, as_keys = dict(named.stored), _layers_of_keys_as_values(fields)
    for name, layer, module in _own_keys(stored):
        if module == "k_proj" and layer in as_keys:
            made[name.replace("k_proj", "v_proj")] = named.stored[name]
    return LazyTensors(made)


# Those of Gemma 3n too.
NAMES = {
    **gemma.NAMES,
    "per_layer_input_gate": "per_layer.gate",
    "per_layer_projection": "per_layer.projection",
    "post_per_layer_input_norm": "per_layer.norm",
    "model.embed_tokens_per_layer": "per_layer.embeddings",
    "model.per_layer_model_projection": "per_layer.projection",
    "model.per_layer_projection_norm": "per_layer.norm",
}

HUGGING_FACE = HuggingFaceReading(
    model_type="gemma4_text",
    defaults=_DEFAULTS,
    params=_params,
    rope=lambda fields: proportional_rope(fields, _ROPE),
    names=NAMES | {"layer_scalar": "layer_scalar"},
    tensors=_tensors,
    unused=_unused,
    activations=gemma.ACTIVATIONS,
    by_layer=True,
    tied=True,
)
