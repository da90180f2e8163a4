"""The shape of a backbone: what `params.json` says, checked.

Field names are those of Meta's `params.json` and of ExecuTorch's `ModelArgs`, so one file
serves Quatrain and ExecuTorch's own exporter.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quatrain.errors import InputError


@dataclass(frozen=True)
class BackboneConfig:
    """A Llama-family decoder. Sizes are element counts; every size is positive.

    Rotary embedding: `use_hf_rope=False` rotates neighbouring pairs (Meta's interleaved
    layout, Q/K rows in that order), `True` rotates halves (Hugging Face's layout).
    `use_scaled_rope` applies Llama 3.1's frequency scaling with the four figures after it.
    """

    dim: int
    n_layers: int
    n_heads: int
    vocab_size: int
    n_kv_heads: int
    head_dim: int
    hidden_dim: int
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    use_hf_rope: bool = False
    use_scaled_rope: bool = False
    rope_scale_factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192
    attention_qkv_bias: bool = False
    use_qk_norm: bool = False
    qk_norm_before_rope: bool = True
    max_seq_len: int = 2048

    @property
    def queries_per_kv_head(self) -> int:
        return self.n_heads // self.n_kv_heads

    def to_params(self) -> dict[str, Any]:
        """The fields as a JSON-ready mapping."""
        return dataclasses.asdict(self)


# What a params.json may also hold: read by others, or by other parts of Quatrain.
_FIELDS_READ_ELSEWHERE = {
    "bos_idx",
    "eos_idx",
    "quantization_args",
    "ffn_dim_multiplier",
    "multiple_of",
    "max_batch_size",
    "max_context_len",
    "model_parallel_size",
    "_comment",
}

_REQUIRED = ("dim", "n_layers", "n_heads", "vocab_size")


def config_from_params(params: dict[str, Any], source: str) -> BackboneConfig:
    """Read a `params.json` mapping. `source` names the file in errors.

    Raises `InputError` where a field is missing, of the wrong type, not positive,
    inconsistent with another, or not one this backbone implements.
    """
    known = {field.name: field for field in dataclasses.fields(BackboneConfig)}
    unknown = sorted(set(params) - set(known) - _FIELDS_READ_ELSEWHERE)
    if unknown:
        raise InputError(
            f"{source}: {', '.join(unknown)} is not a field that this backbone implements; "
            f"known fields are {', '.join(sorted(known))}. "
            "Remove it if the model does not depend on it."
        )
    for name in _REQUIRED:
        if params.get(name) is None:
            raise InputError(f"{source}: the field '{name}' is missing; a params.json needs it")
    values = {name: params[name] for name in known if params.get(name) is not None}
    for name, value in values.items():
        values[name] = _typed(name, value, known[name].type, source)

    values.setdefault("n_kv_heads", values["n_heads"])
    if "head_dim" not in values:
        if values["dim"] % values["n_heads"]:
            raise InputError(
                f"{source}: dim {values['dim']} is not a multiple of n_heads {values['n_heads']}; "
                "state head_dim if that is meant"
            )
        values["head_dim"] = values["dim"] // values["n_heads"]
    if "hidden_dim" not in values:
        values["hidden_dim"] = _hidden_dim(params, values["dim"])
    config = BackboneConfig(**values)
    _check_consistent(config, source)
    return config


def load_params(path: Path) -> dict[str, Any]:
    """Read the JSON object in `path`. Raises `InputError` where it is missing or not an object."""
    try:
        params = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; a checkpoint needs its params.json") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(params, dict):
        raise InputError(f"{path}: holds a {type(params).__name__}, expected a JSON object")
    return params


def _typed(name: str, value: Any, kind: Any, source: str) -> Any:
    kind = {"int": int, "float": float, "bool": bool}.get(kind, kind)
    fits = isinstance(value, bool) if kind is bool else not isinstance(value, bool)
    if kind is int:
        fits = fits and isinstance(value, int)
    elif kind is float:
        fits = fits and isinstance(value, int | float)
    if not fits:
        raise InputError(f"{source}: '{name}' is {value!r}, expected a {kind.__name__}")
    if kind is not bool and not 0 < value < float("inf"):
        raise InputError(f"{source}: '{name}' is {value!r}, expected a positive finite number")
    return kind(value)


def _hidden_dim(params: dict[str, Any], dim: int) -> int:
    """SwiGLU's hidden width where params.json does not state it: Meta's rule, 2/3 of 4 dim
    times the multiplier, rounded up to a multiple of `multiple_of` (256 unless stated)."""
    hidden = int(2 * (4 * dim) / 3)
    hidden = int((params.get("ffn_dim_multiplier") or 1.0) * hidden)
    multiple = params.get("multiple_of") or 256
    return -(-hidden // multiple) * multiple


def _check_consistent(config: BackboneConfig, source: str) -> None:
    if config.n_heads % config.n_kv_heads:
        raise InputError(
            f"{source}: n_heads {config.n_heads} is not a multiple of "
            f"n_kv_heads {config.n_kv_heads}"
        )
    if config.head_dim % 2:
        raise InputError(
            f"{source}: head_dim {config.head_dim} is odd; rotary embedding needs even"
        )
