"""What sets one model family of the Hugging Face hub apart from a plain Llama."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.rope_parameters import rope_params


def no_params(fields: Fields, source: str) -> dict[str, Any]:
    """A family whose config.json says nothing that a plain Llama's would not."""
    return {}


@dataclass(frozen=True)
class Family:
    """`defaults`: what config.json's fields are where it leaves them out, as transformers'
    configuration of that `model_type` has them. The sizes that every config.json states are not
    among them, except where it may be the part of another that states differences only.
    `params(fields, source)`: of config.json's fields, those of params.json that are not read
    for every family, in place of what was read; `rope`: likewise, of the rotary embedding.
    `names`: of its tensors' modules, those called otherwise, to Meta's. `tensors(stored, fields,
    source)`: its tensors, cut or changed where Meta's naming has them otherwise, under Hugging
    Face names still; a quantized matrix F is F.weight, F.scales and perhaps F.zeros by then.
    `activations`: the values of `hidden_act` that are implemented, to those of `act_fn`.
    `tied`: whether the embedding serves as a missing output layer where config.json does not
    say."""

    defaults: Mapping[str, Any]
    params: Callable[[Fields, str], dict[str, Any]] = no_params
    rope: Callable[[Fields, str], dict[str, Any]] = rope_params
    names: Mapping[str, str] = field(default_factory=dict)
    tensors: Callable[[LazyTensors, Fields, str], LazyTensors] | None = None
    activations: Mapping[str, str] = field(
        default_factory=lambda: {"silu": "silu", "swish": "silu"}
    )
    tied: bool = False
