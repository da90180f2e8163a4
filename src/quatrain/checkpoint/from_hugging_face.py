"""Opens a Hugging Face folder (config.json, *.safetensors): what its fields and names mean."""

import re
from pathlib import Path
from typing import Any

from quatrain.backbone.config import config_from_params, load_params
from quatrain.checkpoint.float_model import FloatModel, checked, params_of, usual_context
from quatrain.checkpoint.formats import only_file
from quatrain.checkpoint.layout import IGNORED
from quatrain.checkpoint.safetensors_file import read_safetensors
from quatrain.checkpoint.tensors import LazyTensors
from quatrain.errors import InputError
from quatrain.tokenizer import copy_tokenizer_files

_MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
_INDEX = "model.safetensors.index.json"

_NAMES = {
    "model.embed_tokens": "tok_embeddings",
    "model.norm": "norm",
    "lm_head": "output",
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "self_attn.q_norm": "attention.q_norm_fn",
    "self_attn.k_norm": "attention.k_norm_fn",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}
_NAME = re.compile(r"(?:model\.layers\.(\d+)\.)?([\w.]+)\.(weight|bias)")

# Fields that change what the model computes, with the values the backbone implements.
_IMPLEMENTED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "mlp_bias": (False,),
    "partial_rotary_factor": (1, 1.0),
    "quantization_config": (),
}


def open_hugging_face_model(folder: Path) -> FloatModel:
    """Open the folder of a Hugging Face model as a `FloatModel`.

    The rows of Q and K stay in Hugging Face's half-split order, which `use_hf_rope` states.
    """
    source = str(folder / "config.json")
    fields = load_params(folder / "config.json")
    stored = _read_shards(folder)
    names = {name: _meta_name(name) for name in stored if not IGNORED.fullmatch(name)}
    if fields.get("tie_word_embeddings"):
        names.pop("lm_head.weight", None)
    params = _params(fields, source, set(names.values()))
    config = config_from_params(params, source)
    trained_context = _number(fields, "max_position_embeddings", source)
    bos_id, eos_ids = _end_tokens(folder, fields)
    return checked(
        FloatModel(
            source=folder,
            tensors=stored.renamed(names).as_float32(str(folder)),
            config=config,
            params=params_of(config, trained_context, bos_id, eos_ids),
            write_tokenizer=lambda output: copy_tokenizer_files(folder, output, bos_id, eos_ids),
        )
    )


def _read_shards(folder: Path) -> LazyTensors:
    """The tensors of model.safetensors, or of all the files that the index names."""
    if not (folder / _INDEX).is_file():
        return read_safetensors(only_file(folder, (".safetensors",), "model.safetensors"))
    weight_map = load_params(folder / _INDEX).get("weight_map")
    if not isinstance(weight_map, dict):
        raise InputError(f"{folder / _INDEX}: has no 'weight_map' of tensor names to files")
    merged = {}
    for shard in sorted(set(map(str, weight_map.values()))):
        if Path(shard).name != shard or not (folder / shard).is_file():
            raise InputError(
                f"{folder / _INDEX}: names the file {shard!r}, which is not in the folder; "
                "download the model's missing files"
            )
        merged |= read_safetensors(folder / shard).stored
    return LazyTensors(merged)


def _meta_name(name: str) -> str:
    match = _NAME.fullmatch(name)
    if not match or match[2] not in _NAMES:
        return name  # reported by name as not known, later
    layer = f"layers.{match[1]}." if match[1] else ""
    return f"{layer}{_NAMES[match[2]]}.{match[3]}"


def _params(fields: dict[str, Any], source: str, names: set[str]) -> dict[str, Any]:
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
        "dim": _number(fields, "hidden_size", source),
        "n_layers": _number(fields, "num_hidden_layers", source),
        "n_heads": _number(fields, "num_attention_heads", source),
        "n_kv_heads": fields.get("num_key_value_heads"),
        "head_dim": fields.get("head_dim"),
        "hidden_dim": _number(fields, "intermediate_size", source),
        "vocab_size": _number(fields, "vocab_size", source),
        "norm_eps": _number(fields, "rms_norm_eps", source),
        "use_hf_rope": True,
        "attention_qkv_bias": "layers.0.attention.wq.bias" in names,
        "use_qk_norm": "layers.0.attention.q_norm_fn.weight" in names,
        "max_seq_len": usual_context(_number(fields, "max_position_embeddings", source)),
    }
    return params | _rope(fields, source)


def _refuse_sliding_window(fields: dict[str, Any], source: str) -> None:
    applies = fields.get("use_sliding_window", fields["model_type"] == "mistral")
    if not applies or fields.get("sliding_window") is None:
        return
    window = _number(fields, "sliding_window", source)
    if window < _number(fields, "max_position_embeddings", source):
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
        "rope_scale_factor": _number(scaling, "factor", source),
        "low_freq_factor": _number(scaling, "low_freq_factor", source),
        "high_freq_factor": _number(scaling, "high_freq_factor", source),
        "original_max_position_embeddings": _number(
            scaling, "original_max_position_embeddings", source
        ),
    }


def _number(fields: dict[str, Any], name: str, source: str) -> Any:
    value = fields.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InputError(f"{source}: the field '{name}' is {value!r}, expected a number")
    return value


def _end_tokens(folder: Path, fields: dict[str, Any]) -> tuple[int | None, list[int]]:
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
