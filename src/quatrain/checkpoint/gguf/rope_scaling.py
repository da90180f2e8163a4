"""Scaling of the rotary embedding as GGUF files store it: divisors of frequencies."""

from collections.abc import Collection
from typing import Any

import torch

from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.yarn import Yarn, attention_scale
from quatrain.errors import InputError

FREQUENCY_FACTORS = "rope_freqs.weight"
LONGROPE_FACTORS = {
    "short": "rope_factors_short.weight",
    "long": "rope_factors_long.weight",
}
# (low_freq_factor, high_freq_factor) of Llama 3.1 to 3.3, and of Llama 4.
_LLAMA3_BOUNDS = ((1.0, 4.0), (1.0, 1.0))


def rope_factors(names: Collection[str]) -> set[str]:
    """Those of a file's tensors `names` that `rope_scaling` reads."""
    if FREQUENCY_FACTORS in names:
        return {FREQUENCY_FACTORS}
    return set(LONGROPE_FACTORS.values()) if LONGROPE_FACTORS["long"] in names else set()


def rope_scaling(metadata: GgufMetadata) -> dict[str, Any]:
    """The fields of params.json for what scales `metadata`'s rotary embedding, if anything does.

    Raises `InputError` if that is none of those that are implemented.
    """
    if LONGROPE_FACTORS["long"] in metadata.file.tensors:
        return _longrope(metadata)
    kind = metadata.text("rope.scaling.type") or "linear"  # as in llama.cpp
    if FREQUENCY_FACTORS in metadata.file.tensors and kind == "yarn":
        raise metadata.refuse(
            "rope.scaling.type", f"expected no other scaling beside {FREQUENCY_FACTORS}"
        )
    if kind != "yarn" and metadata.number("rope.scaling.attn_factor", 1.0) != 1.0:
        raise metadata.refuse("rope.scaling.attn_factor", "expected 1 without yarn or longrope")
    if kind == "yarn":
        return _yarn(metadata)
    if kind not in ("linear", "none"):
        raise metadata.refuse("rope.scaling.type", "which this backbone does not implement")
    linear = _linear_factor(metadata) if kind == "linear" else 1.0
    if FREQUENCY_FACTORS in metadata.file.tensors:
        return _by_frequency(metadata, linear)
    return {"rope_linear_factor": linear} if linear != 1.0 else {}


def _linear_factor(metadata: GgufMetadata) -> float:
    """What positions are divided by: older files call it otherwise, and 0 is none."""
    older = metadata.number("rope.scale_linear", 1.0)
    return metadata.number("rope.scaling.factor", older) or 1.0


def _yarn(metadata: GgufMetadata) -> dict[str, Any]:
    """Figures as llama.cpp reads them; its `attn_factor` comes on top of the paper's."""
    key, factor = "rope.scaling", metadata.number("rope.scaling.factor")
    if metadata.number(f"{key}.yarn_ext_factor", 1.0) != 1.0:
        raise metadata.refuse(
            f"{key}.yarn_ext_factor", "expected 1; other values are not implemented"
        )
    yarn = Yarn(
        rotated=metadata.count("rope.dimension_count", metadata.head_dim()),
        theta=metadata.decimal("rope.freq_base", 10000.0),
        factor=factor,
        original_context=metadata.count(
            f"{key}.original_context_length", metadata.get("context_length")
        ),
        beta_fast=metadata.decimal(f"{key}.yarn_beta_fast", Yarn.beta_fast),
        beta_slow=metadata.decimal(f"{key}.yarn_beta_slow", Yarn.beta_slow),
    )
    if yarn.theta <= 1 or min(yarn.factor, yarn.beta_fast, yarn.beta_slow) <= 0:
        raise metadata.refuse(
            f"{key}.type", f"with the values {yarn}, which are not valid for YaRN"
        )
    beside = metadata.number(f"{key}.attn_factor", 1.0)
    return yarn.params(beside * attention_scale(factor))


def _longrope(metadata: GgufMetadata) -> dict[str, Any]:
    """As in llama.cpp, which also divides positions by a factor in addition to the divisors, and
    takes the model's context for that of pretraining if no other is stated."""
    if metadata.text("rope.scaling.type") == "yarn":
        raise metadata.refuse(
            "rope.scaling.type", f"expected 'longrope' beside {LONGROPE_FACTORS['long']}"
        )
    tensors = metadata.file.float_tensors()
    missing = [name for name in LONGROPE_FACTORS.values() if name not in tensors]
    if missing:
        raise InputError(f"{metadata.file.path}: tensor {missing[0]} is missing")
    for name in LONGROPE_FACTORS.values():
        shape = list(tensors.stored[name].shape)
        if len(shape) != 1:
            raise InputError(f"{metadata.file.path}: {name} has shape {shape}, expected [channels]")
    divisors = {
        f"rope_scaling_{which}_factor": [
            float(f"{x:.7g}") for x in (tensors[name].double() * _linear_factor(metadata)).tolist()
        ]
        for which, name in LONGROPE_FACTORS.items()
    }
    return divisors | {
        "rope_scaling_attention_factor": metadata.number("rope.scaling.attn_factor", 1.0),
        "original_max_position_embeddings": metadata.number(
            "rope.scaling.original_context_length", metadata.get("context_length")
        ),
    }


def _by_frequency(metadata: GgufMetadata, linear: float) -> dict[str, Any]:
    """What divides each frequency: `rope_freqs.weight` [head_dim/2] times the factor `linear`.

    Llama 3.1's scaling is known by its divisors, 1 for the short wavelengths and the scale factor
    for the long ones; any others are LongRoPE's, the same for short and long texts.
    """
    found = metadata.file.float_tensors()[FREQUENCY_FACTORS].double()
    theta, head_dim = metadata.decimal("rope.freq_base", 10000.0), metadata.head_dim()
    if list(found.shape) != [head_dim // 2] or not (found.isfinite().all() and found.min() > 0):
        raise InputError(
            f"{metadata.file.path}: {FREQUENCY_FACTORS} is not {head_dim // 2} numbers above 0; "
            "use the model's Hugging Face folder"
        )
    found *= linear
    for low, high in _LLAMA3_BOUNDS:
        scaling = {
            "use_scaled_rope": True,
            "rope_scale_factor": float(found.max()),
            "low_freq_factor": low,
            "high_freq_factor": high,
            "original_max_position_embeddings": 8192,
        }
        if torch.allclose(found, _llama3_divisors(scaling, theta, head_dim), rtol=1e-3):
            return scaling
    divisors = [float(f"{divisor:.7g}") for divisor in found.tolist()]
    return {
        "rope_scaling_short_factor": divisors,
        "rope_scaling_long_factor": divisors,
        "rope_scaling_attention_factor": 1.0,
        "original_max_position_embeddings": metadata.count("context_length"),
    }


def _llama3_divisors(scaling: dict[str, Any], theta: float, head_dim: int) -> torch.Tensor:
    frequencies = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * torch.pi)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    between = (turns - low) / (high - low) if high > low else (turns > low).double()
    smooth = between.clamp(0, 1)
    return 1 / (smooth + (1 - smooth) / scaling["rope_scale_factor"])
