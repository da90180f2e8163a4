"""Gemma 4's text model in a folder of the Hugging Face hub."""

import re
from typing import Any

from quatrain.checkpoint.families import gemma
from quatrain.checkpoint.families.family import HuggingFaceReading, Params
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.hugging_face.fields import (
    Fields,
    flag,
    integer,
    integer_or_none,
    layer_count,
    number_or_none,
    object_of,
    refusal,
)
from quatrain.checkpoint.hugging_face.layer_types import layer_types
from quatrain.checkpoint.hugging_face.rope_parameters import proportional_rope
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
_OWN_KEYS = re.compile(r"model\.layers\.(\d+)\.self_attn\.(?:k_proj|v_proj|k_norm)\..+")
_SCALAR = re.compile(r"model\.layers\.\d+\.layer_scalar")


def _params(fields: Fields, source: str) -> Params:
    _refuse_what_larger_ones_have(fields, source)
    kinds = _kinds(fields, source)
    width, vocabulary = (
        integer(fields, name, source, least=0)
        for name in ("hidden_size_per_layer_input", "vocab_size_per_layer_input")
    )
    if width and vocabulary != integer(fields, "vocab_size", source):
        expected = f"vocab_size, {fields['vocab_size']}"
        raise refusal(fields, "vocab_size_per_layer_input", expected, source)
    return {
        "embedding_scale_factor": integer(fields, "hidden_size", source) ** 0.5,
        "attention_multiplier": 1.0,
        "use_v_norm": True,
        "post_attention_norm": True,
        "post_ffn_norm": True,
        "sliding_window": integer(fields, "sliding_window", source),
        "layer_types": kinds,
        "global_head_dim": _global_head_dim(fields, kinds, source),
        "num_kv_shared_layers": shared_layers(fields, source),
        "kv_shared_by_type": True,
        "double_wide_shared_ffn": flag(fields, "use_double_wide_mlp", source),
        "per_layer_dim": width,
        "use_layer_scalar": True,
        "output_soft_cap_temp": number_or_none(fields, "final_logit_softcapping", source),
    }


def _refuse_what_larger_ones_have(fields: Fields, source: str) -> None:
    lacking = {
        "attention_k_eq_v": "values that are the keys",
        "enable_moe_block": "experts whose answers, not inputs, are weighed",
    }
    for name, has in lacking.items():
        if flag(fields, name, source):
            raise InputError(f"{source}: {name} is true: {has}, which this backbone has not")
    if fields.get("use_bidirectional_attention") not in (None, "vision", False):
        raise refusal(fields, "use_bidirectional_attention", "null or 'vision'", source)


def _kinds(fields: Fields, source: str) -> list[str]:
    """The last layer sees all tokens whatever is said, as transformers has it."""
    kinds = layer_types(fields, source) or full_every(6, layer_count(fields, source))
    return [*kinds[:-1], FULL]


def _global_head_dim(fields: Fields, kinds: list[str], source: str) -> int:
    """That of the layers without a window, as transformers 5 writes it or as releases state it."""
    by_layer = object_of(fields, "per_layer_config", source)
    if not by_layer:
        return integer_or_none(fields, "global_head_dim", source) or _GLOBAL_HEAD_DIM
    full = [index for index, kind in enumerate(kinds) if kind == FULL]
    # Of models with ten layers and more their numbers are written with as many digits: "05".
    by_index = {int(key): value for key, value in by_layer.items() if _is_number(key)}
    first: Any = by_index.get(full[0])
    stated = by_index == dict.fromkeys(full, first) and len(by_index) == len(by_layer)
    if not stated or not isinstance(first, dict) or first.keys() != {"head_dim"}:
        layers = ", ".join(map(str, full))
        expected = f"one head_dim and nothing else for the layers of '{FULL}', {layers}"
        raise refusal(fields, "per_layer_config", expected, source)
    return integer(first, "head_dim", source)


def _is_number(key: str) -> bool:
    return key.isdecimal() and len(key) < 10


def shared_layers(fields: Fields, source: str) -> int:
    """How many layers, the last ones, read others' keys and values."""
    if fields.get("num_kv_shared_layers") is None:
        return 0
    return integer(fields, "num_kv_shared_layers", source, least=0)


def unused_keys(stored: LazyTensors, fields: Fields, source: str) -> set[str]:
    """The keys and values of layers that read others': transformers drops them, too."""
    first = layer_count(fields, source) - shared_layers(fields, source)
    own = {name: _OWN_KEYS.fullmatch(name) for name in stored}
    return {name for name, match in own.items() if match and int(match[1]) >= first}


def _tensors(stored: LazyTensors, fields: Fields, source: str) -> LazyTensors:
    return stored.renamed(
        {name: f"{name}.weight" if _SCALAR.fullmatch(name) else name for name in stored}
    )


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
    rope=lambda fields, source: proportional_rope(fields, _ROPE, source),
    names=NAMES | {"layer_scalar": "layer_scalar"},
    tensors=_tensors,
    unused=unused_keys,
    activations=gemma.ACTIVATIONS,
    by_layer=True,
    tied=True,
)
