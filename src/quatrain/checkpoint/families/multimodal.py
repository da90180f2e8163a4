"""Multimodal models, and the text model inside each.

Nothing of a family is said here: the text model's own reading says that.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Multimodal:
    """A multimodal model, as in transformers' classes of its `model_type`.

    `text`: the `model_type` of its text model if `text_config` has none. `others`: its modules
    other than the text model and the output layer. `tied`: whether output and embedding are tied if
    config.json does not say. `flat`: whether config.json may hold the text model's fields directly,
    without a `text_config`. `defaults`: values of fields that `text_config` omits, if they differ
    from those of the text model's own configuration. `base`: the base of the rotary embedding that
    transformers 5 uses in place of any `rope_theta` that is only in `text_config`. `inside`: the
    module that has all of this, if it is one of several models, which config.json describes in
    `{inside}_config`; `others` are modules of the whole too.
    """

    text: str
    others: tuple[str, ...]
    tied: bool = False
    flat: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)
    base: float | None = None
    inside: str = ""
    text_config: str = "text_config"


_TOWER = ("vision_tower", "multi_modal_projector")
_TOWER_AND_LINES = (*_TOWER, "image_newline")
_SEES = ("visual", "vision_tower")  # the latter is mlx-vlm's name
_CONNECTED = ("vision_model", "connector")
_PROJECTED = ("vision_model", "projector", "vision_projector")  # the last is the hub's name
_PROJECTS_LAYERS = ("vision_tower", "layerwise_projectors", "spatial_projectors", "image_newline")
_SEES_AND_HEARS = ("vision_tower", "embed_vision", "audio_tower", "embed_audio")
# Without towers; the second is the hub's name for most of the first.
_EMBEDS = ("embed_vision", "vision_embedder", "embed_audio")
_SEES_TWICE = (
    "vision_model", "aligner", "high_res_vision_model", "high_res_vision_neck",
    "high_res_vision_proj", "high_res_vision_alpha",
)  # fmt: skip
_SEES_AND_DRAWS = (
    "vision_model", "aligner", "vqmodel", "generation_embeddings", "generation_aligner",
    "generation_head",
)  # fmt: skip
_TOWER_OF_THE_HUB = (*_TOWER, "vision_model", "mlp1")  # the hub's names come last
# Of DeepSeek OCR 2; the hub's names come last.
_READS = (*_TOWER, "view_separator", "sam_model", "qwen2_model", "projector", "view_seperator")
_HEARS = ("audio_tower", "multi_modal_projector")
_TALKS = ("visual", "audio_tower", "talker", "token2wav")
_HEARS_TWICE = (
    "acoustic_tokenizer_encoder", "semantic_tokenizer_encoder", "multi_modal_projector",
)  # fmt: skip
_VOXTRAL = {
    "vocab_size": 131072,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 30,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100000000.0,
    "head_dim": 128,
}
_GLM_ASR = {
    "vocab_size": 59264,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
}

MULTIMODAL = {
    "audioflamingo3": Multimodal("qwen2", _HEARS),
    "aya_vision": Multimodal("cohere2", _TOWER, tied=True),
    "cohere2_vision": Multimodal("cohere2", _TOWER, tied=True),
    "cosmos3_edge": Multimodal("cosmos3_edge_text", ("visual", "projector")),
    "deepseek_ocr2": Multimodal("deepseek_ocr2_text", _READS),
    "deepseek_vl": Multimodal("llama", ("vision_model", "aligner"), tied=True),
    "deepseek_vl_hybrid": Multimodal("llama", _SEES_TWICE, tied=True),
    "exaone4_5": Multimodal("exaone4", ("visual",)),
    "fast_vlm": Multimodal("qwen2", _TOWER),
    "fun_asr_nano": Multimodal("qwen3", _HEARS, tied=True),
    "gemma3": Multimodal("gemma3_text", _TOWER, tied=True),
    "gemma3n": Multimodal("gemma3n_text", _SEES_AND_HEARS, tied=True),
    "gemma4": Multimodal("gemma4_text", _SEES_AND_HEARS, tied=True),
    "gemma4_unified": Multimodal("gemma4_unified_text", _EMBEDS, tied=True),
    "glm46v": Multimodal("glm4v_text", _SEES),
    "glm4v": Multimodal("glm4v_text", _SEES),
    "glm_ocr": Multimodal("glm_ocr_text", _SEES),
    "glmasr": Multimodal("llama", _HEARS, tied=True, defaults=_GLM_ASR, base=10000.0),
    "glmga": Multimodal("glm4v_text", _SEES),
    "got_ocr2": Multimodal("qwen2", _TOWER, tied=True),
    "granite4_vision": Multimodal("granite4_vision_text", _PROJECTS_LAYERS),
    "granite_docling": Multimodal("granite_docling_text", ("vision_model",), tied=True),
    "granite_speech": Multimodal("granite", ("encoder", "projector"), tied=True),
    "granite_speech_plus": Multimodal("granite", ("encoder", "projector"), tied=True),
    "hunyuan_vl": Multimodal("hunyuan_vl_text", ("vision_tower", "vit"), tied=True, flat=True),
    "hyperclovax_vision_v2": Multimodal("hyperclovax", _PROJECTED, tied=True),
    "idefics2": Multimodal("mistral", _CONNECTED),
    "idefics3": Multimodal("llama", _CONNECTED),
    "internvl": Multimodal("qwen2", _TOWER, tied=True),
    "janus": Multimodal("llama", _SEES_AND_DRAWS, tied=True),
    "lfm2_vl": Multimodal("lfm2", _TOWER, tied=True),
    "lfm3_vl": Multimodal("lfm3", _TOWER, tied=True),
    "lighton_ocr": Multimodal("qwen3", ("vision_encoder", "vision_projection"), tied=True),
    "llama4": Multimodal("llama4_text", ("vision_model", "multi_modal_projector")),
    # The models' own code, of LLaVA 1.5, has the text model's fields beside the others.
    "llava": Multimodal("llama", (*_TOWER, "mm_projector"), flat=True),
    "llava_next": Multimodal("llama", _TOWER_AND_LINES),
    "llava_next_video": Multimodal("llama", (*_TOWER_AND_LINES, "vision_resampler")),
    "llava_onevision": Multimodal("qwen2", _TOWER_AND_LINES),
    "minicpm_ocr": Multimodal("qwen3_5_text", ("vision_tower", "merger"), tied=True),
    "minicpmv4_6": Multimodal("qwen3_5_text", ("vision_tower", "merger")),
    "minicpmv4_7": Multimodal("qwen3_5_text", ("vision_tower", "merger")),
    "mistral3": Multimodal("mistral", _TOWER, tied=True),
    "moss_transcribe_diarize": Multimodal("qwen3", _HEARS, tied=True),
    "musicflamingo": Multimodal("qwen2", _HEARS),
    "omniasr": Multimodal("llama", _HEARS),
    "ovis2": Multimodal("qwen2", ("vision_tower", "visual_embeddings_table"), tied=True),
    "paddleocr_vl": Multimodal(
        "paddleocr_vl_text", ("visual", "projector", "mlp_AR"), tied=True, flat=True
    ),
    "perception_lm": Multimodal("llama", _TOWER),
    "phi4_multimodal": Multimodal("phi3", ("embed_tokens_extend",), flat=True),
    "pp_chart2table": Multimodal("qwen2", _TOWER, tied=True),
    "qianfan_ocr": Multimodal("qwen3", _TOWER_OF_THE_HUB),
    "qwen2_5_omni": Multimodal("qwen2_5_omni_text", _TALKS, inside="thinker"),
    "qwen2_5_omni_thinker": Multimodal("qwen2_5_omni_text", _TALKS),
    "qwen2_5_vl": Multimodal("qwen2_5_vl_text", _SEES, flat=True),
    "qwen2_audio": Multimodal("qwen2", _HEARS),
    "qwen2_vl": Multimodal("qwen2_vl_text", _SEES, flat=True),
    "qwen3_5": Multimodal("qwen3_5_text", _SEES),
    "qwen3_5_moe": Multimodal("qwen3_5_moe_text", _SEES),
    "qwen3_asr": Multimodal("qwen3", _HEARS, tied=True),
    "qwen3_vl": Multimodal("qwen3_vl_text", _SEES),
    "smolvlm": Multimodal("llama", _CONNECTED),
    "vibevoice_asr": Multimodal("qwen2", _HEARS_TWICE),
    "video_llama_3": Multimodal("qwen2", ("vision_model", "projector")),
    "video_llava": Multimodal("llama", ("video_tower", "image_tower", "multi_modal_projector")),
    "vipllava": Multimodal("llama", _TOWER),
    "voxtral": Multimodal("llama", _HEARS, defaults=_VOXTRAL),
}


# What transformers has no class for: their files come with code of their own.
_LLAVA = ("vision_tower", "mm_projector", "image_newline")
WITH_OWN_CODE = {
    "internvl_chat": Multimodal(
        "qwen2", ("vision_model", "mlp1"), tied=True, text_config="llm_config"
    ),
    "llava_llama": Multimodal("llama", _LLAVA, flat=True),
    "llava_mistral": Multimodal("mistral", _LLAVA, flat=True),
    "llava_qwen": Multimodal("qwen2", _LLAVA, flat=True),
    "llava_qwen2": Multimodal("qwen2", _LLAVA, flat=True),
    "mobilevlm": Multimodal("llama", _LLAVA, flat=True),
    "phi3_v": Multimodal("phi3", ("vision_embed_tokens",), flat=True),
}


def multimodal_of(model_type: Any) -> Multimodal | None:
    """The entry for config.json's `model_type` if it is a multimodal model, else None."""
    known = MULTIMODAL | WITH_OWN_CODE
    return known.get(model_type) if isinstance(model_type, str) else None
