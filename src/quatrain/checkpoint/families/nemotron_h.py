"""Nemotron-H (Nemotron Nano): state spaces (Mamba-2), a few attentions without rotary embedding,
and feed-forwards with a squared relu and without a gate.

Its files count each of these as a layer. Here a feed-forward belongs to the layer before it, and
layers that none follows go without.
"""

import re
from dataclasses import dataclass
from typing import Any

from quatrain.checkpoint.families import state_spaces
from quatrain.checkpoint.families.family import (
    NO_BIASES,
    Family,
    GgufReading,
    HuggingFaceReading,
    Params,
)
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.gguf.blocks import GgufTensor
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.nth_layers import FULL

MAMBA, FEED_FORWARD = "mamba", "mlp"
_PATTERN, _LIST = "hybrid_override_pattern", "layers_block_type"
_OF_PATTERN = {"M": MAMBA, "*": FULL, "-": FEED_FORWARD}
# As transformers has them and as it had them before.
_OF_LIST = {
    "linear_attention": MAMBA, MAMBA: MAMBA, FULL: FULL, "attention": FULL,
    FEED_FORWARD: FEED_FORWARD,
}  # fmt: skip
_MODULES = {
    MAMBA: {"mixer": "mamba", "norm": "input_layernorm"},
    FULL: {"mixer": "self_attn", "norm": "input_layernorm"},
    FEED_FORWARD: {"mixer": "mlp", "norm": "post_attention_layernorm"},
}
# Its class takes these first, too.
_FIRST_NAMES = {
    "mamba_n_groups": "n_groups",
    "mamba_d_conv": "conv_kernel",
    "mamba_conv_bias": "use_conv_bias",
    "mamba_dt_limit": "time_step_limit",
}
_UNLIKE_LLAMA = {"act_fn": "relu2", "feed_forward_gate": False, "no_rope_layer_interval": 1}
_LAYER = re.compile(r"model\.layers\.(\d+)\.(\w+)\.(.+)")
_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")


@dataclass(frozen=True)
class _Layers:
    """The `kinds` of a file's layers, and for each of them the layer here (`places`)."""

    kinds: list[str]
    places: list[int]

    def params(self) -> Params:
        mixers = [kind for kind in self.kinds if kind != FEED_FORWARD]
        fed = {
            place
            for kind, place in zip(self.kinds, self.places, strict=True)
            if kind == FEED_FORWARD
        }
        return _UNLIKE_LLAMA | {
            "n_layers": len(mixers),
            "layer_types": mixers,
            "no_feed_forward_layers": [i for i in range(len(mixers)) if i not in fed],
        }


def _layers(kinds: list[str]) -> _Layers | None:
    """None if a feed-forward does not follow what mixes tokens."""
    places: list[int] = []
    before = FEED_FORWARD
    for kind in kinds:
        if FEED_FORWARD == kind == before:
            return None
        places.append((places[-1] if places else -1) + (kind != FEED_FORWARD))
        before = kind
    return _Layers(kinds, places) if kinds else None


def _stated_layers(fields: Fields) -> _Layers:
    name, known = (_LIST, _OF_LIST)
    if fields.get(_LIST) is None:
        name, known = (_PATTERN, _OF_PATTERN)
    stated: Any = fields.get(name)
    if isinstance(stated, list if name == _LIST else str):
        kinds = [known.get(kind, "") if isinstance(kind, str) else "" for kind in stated]
        layers = _layers(kinds)
        if all(kinds) and layers is not None:
            return layers
    raise fields.refusal(
        name,
        f"layers of {', '.join(map(repr, known))}, with at most one feed-forward behind each of "
        "the others; experts (E, moe) are not implemented",
    )


def _params(fields: Fields) -> Params:
    if fields.get("mamba_hidden_act") != "silu":
        raise fields.refusal("mamba_hidden_act", "'silu'")
    return _stated_layers(fields).params() | state_spaces.params_of_heads(
        fields, "mamba_num_heads", "mamba_head_dim", "ssm_state_size"
    )


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    layers = _stated_layers(fields)
    renamed = stored.renamed({name: _place(name, layers) for name in stored})
    return state_spaces.tensors(renamed, _params(fields), fields.source)


def _place(name: str, layers: _Layers) -> str:
    """What a Llama, with state spaces, calls the tensor of a file's layer."""
    match = _LAYER.fullmatch(name)
    if match is None or int(match[1]) >= len(layers.kinds):
        return name
    index, module, rest = int(match[1]), match[2], match[3]
    own = _MODULES[layers.kinds[index]].get(module, module)
    return f"model.layers.{layers.places[index]}.{own}.{rest}"


def _predicts_further(stored: LazyTensors, fields: Fields) -> set[str]:
    """What writes several tokens at once (multi-token prediction)."""
    return {name for name in stored if name.startswith("mtp.")}


def _gguf_layers(metadata: GgufMetadata) -> _Layers:
    """Layers without KV heads are those of state spaces, or feed-forwards, which have a width."""
    _, attends = metadata.attending_layers()
    widths = metadata.numbers("feed_forward_length", len(attends))
    kinds = [
        FEED_FORWARD if width else FULL if each else MAMBA
        for each, width in zip(attends, widths, strict=True)
    ]
    layers = _layers(kinds)
    if layers is None:
        raise metadata.refuse("feed_forward_length", "expected a feed-forward behind another layer")
    return layers


def _gguf_params(metadata: GgufMetadata) -> Params:
    layers = _gguf_layers(metadata)
    widths = metadata.numbers("feed_forward_length", len(layers.kinds))
    heads, _ = metadata.attending_layers()
    own = {*filter(None, widths)}
    if len(own) != 1:
        raise metadata.refuse("feed_forward_length", "expected one width, or 0 for other layers")
    return (
        layers.params()
        | state_spaces.gguf_params(metadata)
        | {
            "n_kv_heads": heads,
            "hidden_dim": own.pop(),
            "attention_qkv_bias": metadata.has_tensors("attn_q.bias"),
            "attention_output_bias": metadata.has_tensors("attn_output.bias"),
        }
    )


def _gguf_tensors(tensors: dict[str, GgufTensor], metadata: GgufMetadata) -> dict[str, GgufTensor]:
    layers = _gguf_layers(metadata)
    placed: dict[str, GgufTensor] = {}
    for name, tensor in state_spaces.gguf_tensors(tensors, metadata).items():
        match = _BLOCK.fullmatch(name)
        if match and int(match[1]) < len(layers.kinds):
            index, part = int(match[1]), match[2]
            if layers.kinds[index] == FEED_FORWARD:
                part = part.replace("attn_norm", "ffn_norm")
            name = f"blk.{layers.places[index]}.{part}"
        placed[name] = tensor
    return placed


NEMOTRON_H = Family(
    hugging_face=HuggingFaceReading(
        model_type="nemotron_h",
        defaults={
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 131072,
            "mlp_hidden_act": "relu2",
            "max_position_embeddings": 4096,
            "layer_norm_epsilon": 1e-5,
            "mlp_bias": False,
            "mamba_num_heads": 128,
            "mamba_head_dim": 64,
            "ssm_state_size": 128,
            "n_groups": 8,
            "conv_kernel": 4,
            "use_conv_bias": True,
            "mamba_hidden_act": "silu",
            "time_step_limit": state_spaces.DEFAULTS["time_step_limit"],
        },
        aliases={"layer_types": _LIST, **_FIRST_NAMES},
        params=_params,
        rope=lambda fields: {},
        names={
            "model.norm_f": "norm",
            "mlp.up_proj": "feed_forward.w1",
            **state_spaces.NAMES,
        },
        on_hub={"backbone.": "model.", "model.embeddings.": "model.embed_tokens."},
        tensors=_tensors,
        unused=_predicts_further,
        activations={"relu2": "relu2"},
        biases=NO_BIASES,
    ),
    gguf=GgufReading(
        "nemotron_h",
        half_split=True,
        params=_gguf_params,
        names={"ffn_up": "feed_forward.w1", **state_spaces.GGUF_NAMES},
        fused=state_spaces.gguf_fused,
        filters=state_spaces.FILTERS,
        tensors=_gguf_tensors,
    ),
)
