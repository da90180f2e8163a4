"""Granite Swash: a Granite 3 with a window in three of four layers, a learned sink for each head,
and a base of the rotary embedding for each layer, of which 0 is none; also as a mixture."""

from typing import Any

from quatrain.checkpoint.families import granite, granite_moe_shared
from quatrain.checkpoint.families.family import Family, HuggingFaceReading, Params, sizes
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.layer_types import layer_types
from quatrain.checkpoint.hugging_face.rope.rope_parameters import rope_params, rope_type
from quatrain.checkpoint.nth_layers import FULL, SLIDING

_DENSE = granite.GRANITE.hugging_face
_MIXTURE = granite_moe_shared.GRANITE_MOE_SHARED.hugging_face
_BASES, _LARGEST_BASE = "layer_rope_theta", 1e38
_SINKS = {"self_attn.sinks": "attention.attend.sinks"}


def _params(fields: Fields) -> Params:
    return _DENSE.params(fields) | _windows_and_sinks(fields)


def _params_of_mixture(fields: Fields) -> Params:
    return _MIXTURE.params(fields) | _windows_and_sinks(fields)


def _windows_and_sinks(fields: Fields) -> Params:
    params: Params = {"use_sink_scores": True}
    kinds = _kinds(fields)
    if SLIDING not in kinds:
        return params
    return params | {"sliding_window": fields.integer("sliding_window"), "layer_types": kinds}


def _kinds(fields: Fields) -> list[str]:
    layers = range(fields.layer_count())
    return layer_types(fields) or [SLIDING if index % 4 else FULL for index in layers]


def _rope(fields: Fields) -> Params:
    params, stated = rope_params(fields), fields.get(_BASES)
    if stated is None:
        return params
    full, sliding = (_bases(fields, stated, kind) for kind in (FULL, SLIDING))
    rotating = {base for base in (*full, *sliding) if base}
    if not rotating:
        return params | {"no_rope_layer_interval": 1}
    if sliding == [0]:
        raise fields.refusal(_BASES, "0 for layers without a window alone, or for all layers")
    scaling = fields.object_of("rope_parameters") or fields.object_of("rope_scaling")
    if rotating != {params["rope_theta"]} and rope_type(scaling) != "default":
        expected = f"{params['rope_theta']}, the rope_theta of the scaling, or 0"
        raise fields.refusal(_BASES, expected)
    if full == [0]:
        return params | {"rope_theta": sliding[0], "global_rope": False}
    # A base of windows alone is unscaled; config.json of transformers has all, of one value too.
    local = {"local_rope_theta": sliding[0]} if len(rotating) > 1 else {}
    return params | {"rope_theta": (full or sliding)[0], **local}


def _bases(fields: Fields, stated: Any, kind: str) -> list[float]:
    """The one base of the layers of that kind; none without such a layer."""
    kinds, numbers = _kinds(fields), stated if isinstance(stated, list) else []
    if len(numbers) != len(kinds) or not all(map(_is_base, numbers)):
        raise fields.refusal(_BASES, f"{len(kinds)} numbers, one for each layer, or null")
    found = {float(base) for base, own in zip(numbers, kinds, strict=True) if own == kind}
    if len(found) > 1:
        raise fields.refusal(_BASES, "one number for layers with a window, and one for others")
    return [*found]


def _is_base(number: Any) -> bool:
    known = isinstance(number, int | float) and not isinstance(number, bool)
    return known and 0 <= number <= _LARGEST_BASE


GRANITE_SWA = Family(
    hugging_face=HuggingFaceReading(
        model_type="granite_swa",
        defaults={
            **_DENSE.defaults,
            "num_attention_heads": 20,
            "num_key_value_heads": 4,
            "vocab_size": 100352,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "sliding_window": 128,
        },
        sizes=sizes(2560, 8192, 24),
        params=_params,
        rope=_rope,
        names=_SINKS,
        tied=True,
    )
)
GRANITE_MOE_SWA = Family(
    hugging_face=HuggingFaceReading(
        model_type="granitemoe_swa",
        defaults={**_MIXTURE.defaults, "sliding_window": 128},
        sizes=_MIXTURE.sizes,
        params=_params_of_mixture,
        rope=_rope,
        names={**_MIXTURE.names, **_SINKS},
        tensors=_MIXTURE.tensors,
    )
)
