"""GLM-4: adjacent pairs of half of each head are rotated, gate and up are one tensor. The version
of 2025 (`glm4`) also normalizes the outputs of attention and feed-forward."""

from quatrain.checkpoint.families.family import (
    Biases,
    Family,
    GgufReading,
    HuggingFaceReading,
    Params,
)
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.gguf.tensor_names import POST_NORMS as GGUF_POST_NORMS
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.rope.rope_parameters import partial_rope_params
from quatrain.checkpoint.hugging_face.tensors.fused_rows import rows_apart

_DEFAULTS = {
    "attention_bias": True,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "vocab_size": 151552,
    "hidden_act": "silu",
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1.5625e-7,
    "rope_theta": 10000.0,
}
_BIASES = Biases("attention_bias", False)
_MORE_NORMS = {"post_attention_norm": True, "post_ffn_norm": True}


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    hidden = fields.integer("intermediate_size")
    return rows_apart(
        stored, {"gate_up_proj": {"gate_proj": hidden, "up_proj": hidden}}, fields.source
    )


def _rope(fields: Fields) -> Params:
    return partial_rope_params(fields, rotated=0.5) | {"use_hf_rope": False}


def _gguf_fused(metadata: GgufMetadata) -> dict[str, dict[str, int]]:
    hidden = metadata.count("feed_forward_length")
    return {"ffn_up": {"ffn_gate": hidden, "ffn_up": hidden}}


def _gguf_params(metadata: GgufMetadata) -> Params:
    """Of GLM-4.1V and GLM-OCR, whose rotary embedding is by three positions, a file has queries and
    keys in halves."""
    sections = metadata.get("rope.dimension_sections")
    several = sections is not None and all(section > 0 for section in list(sections)[:2])
    return metadata.rotated_part() | _MORE_NORMS | ({"use_hf_rope": True} if several else {})


GLM = Family(
    hugging_face=HuggingFaceReading("glm", _DEFAULTS, rope=_rope, tensors=_tensors, biases=_BIASES),
    gguf=GgufReading(
        "chatglm",
        half_split=False,
        params=GgufMetadata.rotated_part,
        fused=_gguf_fused,
    ),
)
GLM4 = Family(
    hugging_face=HuggingFaceReading(
        "glm4",
        _DEFAULTS,
        biases=_BIASES,
        params=lambda fields: _MORE_NORMS,
        rope=_rope,
        names={
            "post_self_attn_layernorm": "post_attention_norm",
            "post_mlp_layernorm": "post_ffn_norm",
        },
        tensors=_tensors,
    ),
    gguf=GgufReading(
        "glm4",
        half_split=False,
        params=_gguf_params,
        names=GGUF_POST_NORMS,
        fused=_gguf_fused,
    ),
)
