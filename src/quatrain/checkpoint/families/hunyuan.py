"""HunYuan dense: QK norm after the rotation, whose frequencies a fixed `alpha` stretches."""

from quatrain.checkpoint.families.family import Family, GgufReading, HuggingFaceReading, Params
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.rope.rope_parameters import rope_params, rope_type

AFTER_ROPE = {"qk_norm_before_rope": False}
HEAD_NORMS = {
    "self_attn.query_layernorm": "attention.q_norm_fn",
    "self_attn.key_layernorm": "attention.k_norm_fn",
}


def alpha_rope(fields: Fields) -> Params:
    """NTK-aware scaling (bloc97, 2023) by `alpha`: the base times alpha ^ (width / (width - 2)).
    Files call it dynamic, but with an alpha it is static."""
    params = rope_params(fields)
    names = ("rope_scaling", "rope_parameters")
    stated = [scaling for name in names if (scaling := fields.object_of(name))]
    if not stated or rope_type(stated[0]) != "dynamic" or not stated[0].get("alpha"):
        return params
    if any(other.get("alpha") != stated[0]["alpha"] for other in stated):
        raise stated[-1].refusal("alpha", f"that of {names[0]}, {stated[0]['alpha']!r}")
    width = fields.head_width()
    if width < 4:
        raise fields.refusal("head_dim", "4 or more with an alpha")
    stretch = stated[0].number("alpha") ** (width / (width - 2))
    return params | {"rope_theta": params["rope_theta"] * stretch}


def gguf_params(metadata: GgufMetadata) -> Params:
    """A file holds the base as alpha left it, or an alpha beside the base."""
    alpha = metadata.number("rope.scaling.alpha", 0.0)
    if alpha <= 0:  # as in llama.cpp
        return AFTER_ROPE
    base, width = metadata.decimal("rope.freq_base", 10000.0), metadata.head_dim()
    if width < 4:
        raise metadata.refuse("attention.key_length", "expected 4 or more with an alpha")
    return AFTER_ROPE | {"rope_theta": base * alpha ** (width / (width - 2))}


HUNYUAN = Family(
    hugging_face=HuggingFaceReading(
        model_type="hunyuan_v1_dense",
        defaults={
            "num_attention_heads": 32,
            "vocab_size": 290943,
            "hidden_act": "silu",
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
        },
        params=lambda fields: AFTER_ROPE,
        rope=alpha_rope,
        names=HEAD_NORMS,
    ),
    gguf=GgufReading("hunyuan-dense", half_split=True, params=gguf_params),
)
