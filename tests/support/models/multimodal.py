"""Tiny random models of transformers that also see or hear."""

from typing import Any

import transformers
from transformers import AutoConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES

# What a tower, an encoder or a projector has of these is made as small.
_SMALL = {
    **dict.fromkeys(("hidden_size", "embed_dim", "d_model", "hidden_dim", "out_hidden_size"), 32),
    **dict.fromkeys(("intermediate_size", "encoder_ffn_dim", "mlp_dim", "output_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "depth", "encoder_layers", "num_layers"), 1),
    **dict.fromkeys(("num_attention_heads", "num_heads", "encoder_attention_heads"), 2),
    "num_key_value_heads": 2, "vocab_size": 48, "image_size": 28, "patch_size": 14,
    "num_mel_bins": 8, "max_source_positions": 16, "resampler_n_latents": 2,
    "resampler_depth": 1, "resampler_n_heads": 2, "resampler_head_dim": 16, "input_dim": 16,
    "context_size": 8, "max_pos_emb": 16, "encoder_hidden_size": 32, "output_channels": 16,
    "num_filters": 2,
    "downsample_hidden_size": 8, "downsample_channels": [16, 16], "num_position_embeddings": 16,
    "window_size": 28,
    "vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32,
    "projection_dim": 16, "alignment_intermediate_size": 64,
    "deepstack_visual_indexes": [0], "fullatt_block_indexes": [0], "global_attn_indexes": [0],
}  # fmt: skip

# What some need in place of these.
_IN_PLACE = {
    "granite4_vision": {
        "vision_config": {
            "model_type": "clip_vision_model", "hidden_size": 64, "intermediate_size": 32,
            "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
        },
        "downsample_rate": "1/2", "deepstack_layer_map": [[0, 0]], "spatial_target_layers": [0],
    },
}  # fmt: skip


def multimodal_model(model_type: str, text: dict[str, Any], **fields: Any) -> PreTrainedModel:
    """A model of `model_type` whose text model has the fields `text`, and the rest is small."""
    kind = type(AutoConfig.for_model(model_type))
    whole = kind()
    parts = {
        name: _small(getattr(whole, name))
        for name in kind.sub_configs_defaults
        if name != "text_config" and getattr(whole, name) is not None
    }
    for part in parts.values():
        if "out_hidden_size" in part:  # which some classes hold against the text model's
            part["out_hidden_size"] = text["hidden_size"]
    name = f"{kind.__name__.removesuffix('Config')}ForConditionalGeneration"
    if not hasattr(transformers, name):  # it is another model's class
        name = MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES[model_type]
    model = getattr(transformers, name)
    own = {name: value for name, value in _SMALL.items() if hasattr(whole, name)}
    own |= _IN_PLACE.get(model_type, {})
    return model(kind(**{"text_config": text, **parts, **own, **fields}))


def _small(part: Any) -> dict[str, Any]:
    fields = part.to_dict()
    own = {name: value for name, value in _SMALL.items() if fields.get(name) is not None}
    parts = {name: getattr(part, name) for name in part.sub_configs_defaults}
    of_parts = {name: _small(inner) for name, inner in parts.items() if inner is not None}
    return {"model_type": part.model_type, **own, **of_parts}
