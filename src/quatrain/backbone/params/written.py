"""Writes the shape of a backbone as a `params.json`."""

import dataclasses
from typing import Any

from quatrain.backbone.config import BackboneConfig

ATTENTION_FACTOR = "rope_scaling_attention_factor"
_ALWAYS = {
    "dim", "n_layers", "n_heads", "vocab_size", "n_kv_heads", "head_dim", "hidden_dim", "norm_eps",
    "rope_theta", "use_hf_rope", "use_scaled_rope", "rope_scale_factor", "low_freq_factor",
    "high_freq_factor", "original_max_position_embeddings", "attention_qkv_bias", "use_qk_norm",
    "qk_norm_before_rope", "max_seq_len",
}  # fmt: skip


def written_params(config: BackboneConfig) -> dict[str, Any]:
    """The fields of `config` as a JSON-ready mapping: those every backbone has, and what differs
    from a plain Llama. `config_from_params` reads the same config from it."""
    fields = {field.name: field for field in dataclasses.fields(config)}
    values = dataclasses.asdict(config)
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if name in _ALWAYS
        or value != fields[name].default
        # A LongRoPE without it has a factor that follows from its contexts.
        or (name == ATTENTION_FACTOR and config.rope_scaling_long_factor is not None)
    }
