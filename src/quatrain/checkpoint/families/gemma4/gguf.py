"""Gemma 4's text model in a GGUF file, and what one of Gemma 3n states alike."""

import re
from collections.abc import Iterable
from dataclasses import replace

from quatrain.checkpoint.families.family import GgufReading, Params
from quatrain.checkpoint.gguf.blocks import GgufTensor
from quatrain.checkpoint.gguf.metadata import GgufMetadata, is_count
from quatrain.checkpoint.gguf.rope_scaling import FREQUENCY_FACTORS
from quatrain.checkpoint.gguf.tensor_names import POST_NORMS
from quatrain.checkpoint.nth_layers import FULL
from quatrain.errors import InputError

_OWN_KEYS = re.compile(r"blk\.(\d+)\.attn_(?:k|v|k_norm)\.weight")
_NOT_ROTATED = 1e30  # what divides the frequency of a plane that is not rotated
NAMES = {
    **POST_NORMS,
    "inp_gate": "per_layer.gate",
    "proj": "per_layer.projection",
    "post_norm": "per_layer.norm",
    "per_layer_token_embd": "per_layer.embeddings",
    "per_layer_model_proj": "per_layer.projection",
    "per_layer_proj_norm": "per_layer.norm",
}


def shared_params(metadata: GgufMetadata) -> Params:
    """The fields of params.json that GGUF files of Gemma 3n and 4 state in the same way.

    A missing cap of the logits has llama.cpp's default."""
    return {
        "act_fn": "gelu_approx",
        "embedding_scale_factor": metadata.count("embedding_length") ** 0.5,
        "attention_multiplier": 1.0,
        "use_v_norm": True,
        "post_attention_norm": True,
        "post_ffn_norm": True,
        "sliding_window": metadata.count("attention.sliding_window"),
        "local_rope_theta": metadata.decimal("rope.freq_base_swa", 10000.0),
        "num_kv_shared_layers": _shared_layers(metadata),
        "kv_shared_by_type": True,
        "output_soft_cap_temp": metadata.number("final_logit_softcapping", 30.0) or None,
    }


def _shared_layers(metadata: GgufMetadata) -> int:
    """How many layers, the last ones, read others' keys."""
    return metadata.some_layers("attention.shared_kv_layers")


def unused_keys(names: Iterable[str], metadata: GgufMetadata) -> set[str]:
    """The keys and values of layers that read others'."""
    first = metadata.count("block_count") - _shared_layers(metadata)
    own = {name: _OWN_KEYS.fullmatch(name) for name in names}
    return {name for name, match in own.items() if match and int(match[1]) >= first}


def _params(metadata: GgufMetadata) -> Params:
    """Lengths of heads are those of layers without a window; of the others they are called so."""
    narrow = metadata.count("attention.key_length_swa")
    for key in ("attention.value_length_swa", "rope.dimension_count_swa"):
        if metadata.number(key, narrow) != narrow:
            raise metadata.refuse(key, f"expected {narrow}; other values are not implemented")
    return (
        shared_params(metadata)
        | _widths(metadata)
        | {
            "layer_types": metadata.layer_types(6),
            **_kv_heads(metadata),
            "head_dim": narrow,
            "global_head_dim": metadata.head_dim(),
            "per_layer_dim": metadata.number("embedding_length_per_layer_input", 0),
            "use_layer_scalar": True,
        }
    )


def _kv_heads(metadata: GgufMetadata) -> Params:
    """The number of KV heads, which may be another in layers without a window."""
    key, kinds = "attention.head_count_kv", metadata.layer_types(6)
    counts = metadata.numbers(key, len(kinds))
    of_full = {count for count, kind in zip(counts, kinds, strict=True) if kind == FULL}
    of_windows = {count for count, kind in zip(counts, kinds, strict=True) if kind != FULL}
    if len(of_full) > 1 or len(of_windows) > 1 or not all(map(is_count, counts)):
        raise metadata.refuse(key, "expected one number for each kind of layers")
    every, full = of_windows or of_full, of_full or of_windows
    return {"n_kv_heads": int(min(every)), "n_global_kv_heads": int(min(full))}


def _tensors(tensors: dict[str, GgufTensor], metadata: GgufMetadata) -> dict[str, GgufTensor]:
    """If no layer without a window has values, its keys, before their norm and rotation, are the
    values too."""
    full = [index for index, kind in enumerate(metadata.layer_types(6)) if kind == FULL]
    made = dict(tensors)
    for index in full:
        keys, values = f"blk.{index}.attn_k.weight", f"blk.{index}.attn_v.weight"
        if values in tensors:
            return tensors
        if keys in tensors:
            made[values] = replace(tensors[keys], name=values)
    return made


def _widths(metadata: GgufMetadata) -> Params:
    """Those of feed-forwards: one, or twice that in the layers that read others' keys."""
    key, layers = "feed_forward_length", metadata.layer_count()
    widths = metadata.numbers(key, layers)
    narrow = layers - min(_shared_layers(metadata), layers)
    wide = widths[-1] == 2 * widths[0]
    last = widths[-1] if wide else widths[0]
    if not is_count(widths[0]) or widths != [widths[0]] * narrow + [last] * (layers - narrow):
        expected = f"one number, or twice it for the last {layers - narrow} layers"
        raise metadata.refuse(key, f"expected {expected}; other values are not implemented")
    return {"hidden_dim": int(widths[0]), "double_wide_shared_ffn": wide}


def _rope(metadata: GgufMetadata) -> Params:
    """What divides frequencies in layers without a window: 1, or so much that none is rotated."""
    kind, factor = metadata.text("rope.scaling.type"), "rope.scaling.factor"
    if kind not in (None, "none"):
        raise metadata.refuse(
            "rope.scaling.type", "which this backbone does not implement for Gemma 4"
        )
    if kind is None and metadata.number(factor, 1) not in (0, 1):
        raise metadata.refuse(factor, "which this backbone does not implement for Gemma 4")
    path, tensors = metadata.file.path, metadata.file.float_tensors()
    if FREQUENCY_FACTORS not in tensors:
        raise InputError(f"{path}: tensor {FREQUENCY_FACTORS} is missing")
    divisors = tensors[FREQUENCY_FACTORS].tolist()
    planes, rotated = metadata.head_dim() // 2, divisors.count(1.0)
    if not rotated or divisors != [1.0] * rotated + [divisors[-1]] * (planes - rotated):
        rotated = 0
    if not rotated or (rotated < planes and divisors[-1] < _NOT_ROTATED * 0.99):
        raise InputError(
            f"{path}: {FREQUENCY_FACTORS} is not {planes} numbers, 1 for rotated planes and "
            f"{_NOT_ROTATED:g} for the others; other values are not implemented"
        )
    return {"global_rotary_planes": rotated / planes}


GGUF = GgufReading(
    "gemma4",
    half_split=True,
    params=_params,
    rope=_rope,
    names=NAMES | {"layer_output_scale": "layer_scalar"},
    tensors=_tensors,
    unused=unused_keys,
)
