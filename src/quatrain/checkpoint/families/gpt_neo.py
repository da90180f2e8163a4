"""GPT-Neo and TinyStories: as GPT-2, its matrices not transposed, without a bias of queries, keys
and values; attention scores as they are, and a window in every other layer."""

from typing import Any

from quatrain.checkpoint.families import gpt2
from quatrain.checkpoint.families.family import (
    APPROXIMATE_GELU,
    Biases,
    Family,
    HuggingFaceReading,
    Params,
)
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.nth_layers import FULL, SLIDING

_KINDS = {"global": FULL, "local": SLIDING}
_OWN = {kind: name for name, kind in _KINDS.items()}
_TYPES = "attention_types"


def _params(fields: Fields) -> Params:
    params = gpt2.params_with_positions(fields) | {"attention_multiplier": 1.0}
    kinds = _kinds(fields)
    if SLIDING not in kinds:
        return params
    return params | {"sliding_window": fields.integer("window_size"), "layer_types": kinds}


def _kinds(fields: Fields) -> list[str]:
    """The types of all layers: `attention_types` has pairs of some types and how often they
    follow."""
    layers, kinds = fields.layer_count(), []
    stated = fields.get(_TYPES)
    pairs: list[Any] = stated if isinstance(stated, list) else [stated]
    for pair in pairs:
        if not _is_pair(pair) or pair[1] > layers:
            expected = 'pairs of a list of "global" and "local" and a number, as [["global"], 24]'
            raise fields.refusal(_TYPES, expected)
        kinds += [_KINDS[kind] for kind in pair[0]] * pair[1]
    if len(kinds) != layers:
        raise fields.refusal(_TYPES, f"types of {layers} layers, as many as num_layers")
    by_layer = fields.get("attention_layers")
    if by_layer is not None and by_layer != [_OWN[kind] for kind in kinds]:
        raise fields.refusal("attention_layers", f"what {_TYPES} says, or none")
    return kinds


def _is_pair(pair: Any) -> bool:
    if not isinstance(pair, list) or len(pair) != 2:
        return False
    kinds, count = pair
    known = isinstance(kinds, list) and all(isinstance(kind, str) for kind in kinds)
    return known and {*kinds} <= _KINDS.keys() and isinstance(count, int)


GPT_NEO = Family(
    hugging_face=HuggingFaceReading(
        model_type="gpt_neo",
        biases=Biases(False, True, True),
        defaults={
            "vocab_size": 50257,
            "max_position_embeddings": 2048,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
            "window_size": 256,
        },
        params=_params,
        rope=lambda fields: {},
        names=gpt2.NAMES | {"self_attn.out_proj": "attention.wo"},
        on_hub=gpt2.ON_HUB,
        unused=gpt2.causal_masks,
        aliases={"num_heads": "num_attention_heads", "num_layers": "num_hidden_layers"},
        activations={"gelu": "gelu", **APPROXIMATE_GELU},
        tied=True,
    )
)
