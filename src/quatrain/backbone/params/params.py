"""A `params.json`, checked, as the shape of a backbone.

Field names are those of Meta's `params.json` and of ExecuTorch's `ModelArgs`, so one file serves
Quatrain and ExecuTorch's own exporter.
"""

import dataclasses
import difflib
import math
from collections.abc import Iterable
from typing import Any

from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.params.contradictions import contradictions
from quatrain.backbone.params.field_types import typed_value
from quatrain.backbone.params.written import ATTENTION_FACTOR
from quatrain.errors import InputError
from quatrain.multiples import up_to

# Other names that the same fields have in ExecuTorch's ModelArgs.
_ALIASES = {
    "rope_freq_base": "rope_theta",
    "final_logit_softcapping": "output_soft_cap_temp",
}

# What a params.json may also hold: read by others, or by other parts of Quatrain.
_FIELDS_READ_ELSEWHERE = {
    "bos_idx",
    "eos_idx",
    "quantization_args",
    "ffn_dim_multiplier",
    "multiple_of",
    "max_batch_size",
    "max_context_len",
    "max_position_embeddings",
    "model_parallel_size",
    "_comment",
}

# What only Mistral's own files state, beside folders of Hugging Face's with the same model.
_OF_MISTRAL = {
    "yarn", "llama_4_scaling", "tied_embeddings", "vision_encoder", "quantization", "moe",
    "_sliding_window",
}  # fmt: skip

_REQUIRED = ("dim", "n_layers", "n_heads", "vocab_size")


def _remedy_for_unknown(unknown: list[str], known: Iterable[str], of_mistral: set[str]) -> str:
    """What to do without them: the known fields that may have been meant, or another folder."""
    if not of_mistral.isdisjoint(unknown):
        return (
            "; it is of Mistral's own format, and the same repository holds the model in Hugging "
            "Face's: give a folder with its config.json and the files of tensors that go with it"
        )
    near = {one: None for name in unknown for one in difflib.get_close_matches(name, known, 2)}
    meant = f" (it has {', '.join(near)})" if near else ""
    return f"{meant}; remove it if the model does not depend on it"


def config_from_params(params: dict[str, Any], source: str) -> BackboneConfig:
    """Read a `params.json` mapping. `source` names the file in errors.

    Raises `InputError` if a field is missing, of the wrong type, not positive, inconsistent with
    another, or not one this backbone implements.
    """
    params = _by_one_name(params, source)
    known = {
        field.name: field
        for field in dataclasses.fields(BackboneConfig)
        if field.name != "prefill_chunk_size"  # which a program has, and no model
    }
    stated = {name for name, value in params.items() if value is not None}
    unknown = sorted(stated - set(known) - _FIELDS_READ_ELSEWHERE)
    if unknown:
        # `moe` is ExecuTorch's too, where it is true or false.
        of_mistral = _OF_MISTRAL - {"moe"} if isinstance(params.get("moe"), bool) else _OF_MISTRAL
        raise InputError(
            f"{source}: {', '.join(unknown)} is not a field that this backbone implements"
            f"{_remedy_for_unknown(unknown, known, of_mistral)}"
        )
    for name in _REQUIRED:
        if params.get(name) is None:
            raise InputError(f"{source}: the field '{name}' is missing; a params.json needs it")
    values = {
        name: typed_value(name, params[name], field.type, source, zero=field.default in (0, ()))
        for name, field in known.items()
        if params.get(name) is not None
    }
    _check_read_elsewhere(params, source)
    values.setdefault("n_kv_heads", values["n_heads"])
    if "head_dim" not in values:
        if values["dim"] % values["n_heads"]:
            raise InputError(
                f"{source}: dim {values['dim']} is not a multiple of n_heads {values['n_heads']}; "
                "set head_dim if that is intended"
            )
        values["head_dim"] = values["dim"] // values["n_heads"]
    if "hidden_dim" not in values:
        values["hidden_dim"] = _hidden_dim(params, values["dim"], source)
    if "rope_scaling_long_factor" in values and ATTENTION_FACTOR not in values:
        values[ATTENTION_FACTOR] = _attention_factor(params, source)
    config = BackboneConfig(**values)
    for problem in contradictions(config):
        raise InputError(f"{source}: {problem}")
    return config


def _by_one_name(params: dict[str, Any], source: str) -> dict[str, Any]:
    """`params` without aliases. Raises `InputError` if two names of a field disagree."""
    named = {name: value for name, value in params.items() if name not in _ALIASES}
    for alias, name in _ALIASES.items():
        value = params.get(alias)
        if value is None:
            continue
        if named.get(name) not in (None, value):
            raise InputError(
                f"{source}: {alias} is {value!r} and {name} is {named[name]!r}, "
                "two names of one field; remove one of them"
            )
        named[name] = value
    return named


def _check_read_elsewhere(params: dict[str, Any], source: str) -> None:
    """Raise `InputError` if a field that others read is not what they take it for."""
    end = tuple[int, ...] if isinstance(params.get("eos_idx"), list) else int
    for name, kind in (
        ("bos_idx", int),
        ("eos_idx", end),
        ("max_context_len", int),
        ("max_position_embeddings", int),
    ):
        if params.get(name) is not None:
            typed_value(name, params[name], kind, source, zero=name.endswith("_idx"))


def _hidden_dim(params: dict[str, Any], dim: int, source: str) -> int:
    """SwiGLU's hidden width if params.json does not state it: Meta's rule, 2/3 of 4 dim times the
    multiplier, rounded up to a multiple of `multiple_of` (256 unless stated)."""
    stated = {"ffn_dim_multiplier": 1.0, "multiple_of": 256}
    for name, default in stated.items():
        if params.get(name) is not None:
            stated[name] = typed_value(name, params[name], type(default), source)
    hidden = stated["ffn_dim_multiplier"] * int(2 * (4 * dim) / 3)
    if not math.isfinite(hidden):
        raise InputError(
            f"{source}: ffn_dim_multiplier is {stated['ffn_dim_multiplier']!r}, which is too "
            "large for any model"
        )
    multiple = int(stated["multiple_of"])
    return up_to(int(hidden), multiple)


def _attention_factor(params: dict[str, Any], source: str) -> float:
    """LongRoPE's factor if params.json does not state it, as in ExecuTorch: sqrt(1 + ln(s) /
    ln(original context)) for a context s times as long."""
    longest = params.get("max_position_embeddings")
    original = params.get("original_max_position_embeddings")
    if longest is None or original is None or original < 2:
        raise InputError(
            f"{source}: {ATTENTION_FACTOR} is missing; state it (1.0 leaves the rotary tables as "
            "they are), or max_position_embeddings and original_max_position_embeddings, "
            f"from which it follows (they are {longest!r} and {original!r})"
        )
    return math.sqrt(1 + math.log(max(longest / original, 1.0)) / math.log(original))
