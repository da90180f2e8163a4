"""What a Hugging Face config.json says about a model, in the fields of a params.json."""

from pathlib import Path
from typing import Any

from quatrain.backbone.config import load_params
from quatrain.checkpoint.float_model import usual_context
from quatrain.errors import InputError

_MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")

# Fields that change what the model computes, with the values the backbone implements.
_IMPLEMENTED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "mlp_bias": (False,),
    "partial_rotary_factor": (1, 1.0),
}


def params_of_config(fields: dict[str, Any], source: str, names: set[str]) -> dict[str, Any]:
    """The params of config.json's `fields`, for a model that holds the Meta tensors `names`.

    Raises `InputError`, naming `source`, where the backbone does not implement one.
    """
    model_type = fields.get("model_type")
    if model_type not in _MODEL_TYPES:
        raise InputError(
            f"{source}: model_type is {model_type!r}, expected one of {', '.join(_MODEL_TYPES)}"
        )
    for name, implemented in _IMPLEMENTED.items():
        value = fields.get(name)
        if value is not None and value not in implemented:
            expected = " or ".join(map(repr, implemented)) or "none"
            raise InputError(f"{source}: {name} is {value!r}, this backbone implements {expected}")
    _refuse_sliding_window(fields, source)
    params = {
        "dim": number(fields, "hidden_size", source),
        "n_layers": number(fields, "num_hidden_layers", source),
        "n_heads": number(fields, "num_attention_heads", source),
        "n_kv_heads": fields.get("num_key_value_heads"),
        "head_dim": fields.get("head_dim"),
        "hidden_dim": number(fields, "intermediate_size", source),
        "vocab_size": number(fields, "vocab_size", source),
        "norm_eps": number(fields, "rms_norm_eps", source),
        "use_hf_rope": True,
        "attention_qkv_bias": "layers.0.attention.wq.bias" in names,
        "use_qk_norm": "layers.0.attention.q_norm_fn.weight" in names,
        "max_seq_len": usual_context(number(fields, "max_position_embeddings", source)),
    }
    return params | _rope(fields, source)


def _refuse_sliding_window(fields: dict[str, Any], source: str) -> None:
    applies = fields.get("use_sliding_window", fields["model_type"] == "mistral")
    if not applies or fields.get("sliding_window") is None:
        return
    window = number(fields, "sliding_window", source)
    if window < number(fields, "max_position_embeddings", source):
        raise InputError(
            f"{source}: sliding_window is {window}, which this backbone does not implement"
        )


def _rope(fields: dict[str, Any], source: str) -> dict[str, Any]:
    """The rotary embedding's figures: in `rope_parameters` (transformers 5) or beside each other
    in `rope_theta` and `rope_scaling`."""
    scaling = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    if not isinstance(scaling, dict):
        raise InputError(f"{source}: rope_scaling is {scaling!r}, expected an object or null")
    params = {"rope_theta": scaling.get("rope_theta", fields.get("rope_theta", 10000.0))}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if scaling.get("partial_rotary_factor", 1) != 1 or kind not in ("default", "llama3"):
        raise InputError(
            f"{source}: rotary embedding {scaling!r} is not implemented, "
            "expected rope_type 'default' or 'llama3'"
        )
    if kind == "default":
        return params
    return params | {
        "use_scaled_rope": True,
        "rope_scale_factor": number(scaling, "factor", source),
        "low_freq_factor": number(scaling, "low_freq_factor", source),
        "high_freq_factor": number(scaling, "high_freq_factor", source),
        "original_max_position_embeddings": number(
            scaling, "original_max_position_embeddings", source
        ),
    }


def number(fields: dict[str, Any], name: str, source: str) -> Any:
    value = fields.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InputError(f"{source}: the field '{name}' is {value!r}, expected a number")
    return value


def end_tokens(folder: Path, fields: dict[str, Any]) -> tuple[int | None, list[int]]:
    """The ids that begin and end a text: generation_config.json's, where it says."""
    generation = folder / "generation_config.json"
    said = {**fields, **(load_params(generation) if generation.is_file() else {})}
    eos = said.get("eos_token_id")
    eos_ids = eos if isinstance(eos, list) else [eos]
    bos = said.get("bos_token_id")
    return (
        bos if isinstance(bos, int) else None,
        [token for token in eos_ids if isinstance(token, int)],
    )
