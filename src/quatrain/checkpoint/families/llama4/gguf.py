"""Llama 4 in GGUF files."""

from quatrain.checkpoint.families import weighted_experts
from quatrain.checkpoint.families.family import GgufReading, Params
from quatrain.checkpoint.gguf.metadata import GgufMetadata

_CHUNK = 8192  # whatever a file says, unless it is 0
_NAMES = weighted_experts.GGUF_NAMES | weighted_experts.GGUF_SHARED_NAMES


def _params(metadata: GgufMetadata) -> Params:
    experts = metadata.number("expert_count", 0)
    if experts == 1:
        raise metadata.refuse("expert_count", "expected 0, or 2 or more experts")
    params: Params = {
        "qk_norm_affine": False,
        "qk_norm_before_rope": False,
        "qk_norm_without_rope": False,
        "use_qk_norm": experts != 128,  # Maverick has none
    }
    if metadata.number("attention.sliding_window", _CHUNK):
        params |= {
            "no_rope_layer_interval": 4,
            "attention_chunk_size": _CHUNK,
            "attn_temperature_tuning": True,
        }
    if experts:
        params |= {
            "num_experts": experts,
            "num_activated_experts": metadata.number("expert_used_count"),
            "interleave_moe_layer_step": metadata.number("interleave_moe_layer_step", 1),
            "moe_hidden_dim": metadata.number("expert_feed_forward_length"),
        }
    return params


GGUF = GgufReading("llama4", half_split=False, params=_params, names=_NAMES)
