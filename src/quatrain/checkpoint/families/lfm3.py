"""LFM3: an LFM2 in whose attention some layers have a window, with a gate for each head and norms
behind attention, convolution and feed-forward."""

from quatrain.checkpoint.families import lfm2
from quatrain.checkpoint.families.family import Family, HuggingFaceReading, Params, sizes
from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.layer_types import layer_types
from quatrain.checkpoint.hugging_face.rope.proportional_rope import proportional_rope
from quatrain.checkpoint.nth_layers import FULL, SLIDING

_LFM2 = lfm2.LFM2.hugging_face
_ROPE = {
    SLIDING: {"rope_type": "default", "rope_theta": 10000.0},
    FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.5, "rope_theta": 1000000.0},
}
_GATE = ".self_attn.g_proj."


def _params(fields: Fields) -> Params:
    kinds = layer_types(fields, SLIDING, lfm2.CONV)
    normed = fields.flag("use_sandwich_norm")
    return lfm2.convolutions(fields) | {
        "layer_types": kinds or [_default_type(index) for index in range(fields.layer_count())],
        "sliding_window": fields.integer("sliding_window"),
        "post_attention_norm": normed,
        "post_ffn_norm": normed,
        "use_attn_o_gate": fields.flag("use_attention_gate"),
    }


def _default_type(index: int) -> str:
    if index % 4 == 2:
        return FULL
    return SLIDING if index and index % 4 == 0 else lfm2.CONV


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    """Repeat the gate of each head for its channels, as the backbone expects."""
    width = fields.head_width()
    apart = _LFM2.tensors(stored, fields)
    return apart.each(lambda name, tensor: _repeated(tensor, width) if _GATE in name else tensor)


def _repeated(gates: StoredTensor, times: int) -> StoredTensor:
    shape = (gates.shape[0] * times, *gates.shape[1:]) if gates.shape else ()
    return gates.changed(lambda each: each.repeat_interleave(times, dim=0), shape)


LFM3 = Family(
    hugging_face=HuggingFaceReading(
        model_type="lfm3",
        defaults={
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "vocab_size": 128_000,
            "max_position_embeddings": 128_000,
            "norm_eps": 1e-5,
            "sliding_window": 256,
            "conv_L_cache": 7,
            "use_sandwich_norm": True,
            "use_attention_gate": True,
        },
        sizes=sizes(2048, 7680, 24),
        aliases={"rms_norm_eps": "norm_eps"},
        params=_params,
        rope=lambda fields: proportional_rope(fields, _ROPE),
        names={
            **_LFM2.names,
            "self_attn.o_proj": "attention.wo",
            "self_attn.q_norm": "attention.q_norm_fn",
            "self_attn.k_norm": "attention.k_norm_fn",
            "self_attn.g_proj": "attention.og",
            "post_operator_norm": "post_attention_norm",
            "post_ffn_norm": "post_ffn_norm",
        },
        tensors=_tensors,
        on_hub={".self_attn.gate_proj.": _GATE},
        activations=_LFM2.activations,
        tied=True,
    ),
)
