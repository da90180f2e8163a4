"""The text models of GLM-4.1V and GLM-OCR: a GLM-4 (2025) with a rotary embedding of all of each
head, where config.json states no other part, by three positions, which are equal for text."""

from dataclasses import replace

from quatrain.checkpoint.families import glm, qwen
from quatrain.checkpoint.families.family import NO_BIASES, QKV_BIASES, Family, Params, sizes
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.rope.rope_parameters import partial_rope_params
from quatrain.checkpoint.hugging_face.tensors.further_layers import further_layers


def _rope(fields: Fields) -> Params:
    rope = partial_rope_params(qwen.of_one_position(fields), rotated=1.0)
    return rope | {"use_hf_rope": False}


_DEFAULTS = {
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "vocab_size": 151552,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
}
GLM4V = Family(
    replace(
        glm.GLM4.hugging_face,
        model_type="glm4v_text",
        defaults=_DEFAULTS,
        sizes=sizes(4096, 13696, 40),
        rope=_rope,
        biases=QKV_BIASES,
    )
)
GLM_OCR = Family(
    replace(
        glm.GLM4.hugging_face,
        model_type="glm_ocr_text",
        defaults=_DEFAULTS
        | {
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "vocab_size": 59392,
            "max_position_embeddings": 131072,
        },
        sizes=sizes(1024, 4096, 16),
        rope=_rope,
        biases=NO_BIASES,
        unused=further_layers,
    )
)
