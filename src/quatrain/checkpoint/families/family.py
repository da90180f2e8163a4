"""What sets one model family of the Hugging Face hub apart from a plain Llama."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from quatrain.checkpoint.tensors import LazyTensors
from quatrain.errors import InputError

Fields = dict[str, Any]  # of a config.json
_MOST_LAYERS = 10_000


def no_params(fields: Fields, source: str) -> dict[str, Any]:
    """A family whose config.json says nothing that a plain Llama's would not."""
    return {}


@dataclass(frozen=True)
class Family:
    """`params(fields, source)`: of config.json's fields, those of params.json that are not read
    for every family, in place of what was read. `names`: of its tensors' modules, those called
    otherwise, to Meta's. `tensors(stored, fields, source)`: its tensors, cut or changed where
    Meta's naming has them otherwise, under Hugging Face names still; a quantized matrix F is
    F.weight, F.scales and perhaps F.zeros by then.
    `activations`: the values of `hidden_act` that are implemented, to those of `act_fn`."""

    params: Callable[[Fields, str], dict[str, Any]] = no_params
    names: Mapping[str, str] = field(default_factory=dict)
    tensors: Callable[[LazyTensors, Fields, str], LazyTensors] | None = None
    activations: Mapping[str, str] = field(
        default_factory=lambda: {"silu": "silu", "swish": "silu"}
    )


def number(fields: Fields, name: str, source: str) -> Any:
    """The field `name`. Raises `InputError` where it is not a number."""
    value = fields.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InputError(f"{source}: the field '{name}' is {value!r}, expected a number")
    return value


def layer_count(fields: Fields, source: str) -> int:
    """num_hidden_layers, where a list of as many entries is no danger. Raises `InputError`."""
    layers = number(fields, "num_hidden_layers", source)
    if not isinstance(layers, int) or not 0 < layers <= _MOST_LAYERS:
        raise InputError(f"{source}: num_hidden_layers is {layers!r}, which no model has")
    return layers


def sliding_window(fields: Fields, source: str) -> dict[str, Any]:
    """The window and the layers that have one, where it is shorter than the model's context."""
    window = fields.get("sliding_window")
    if window is None or window >= number(fields, "max_position_embeddings", source):
        return {}
    kinds = fields.get("layer_types")
    if kinds is not None and not set(kinds) <= {"full_attention", "sliding_attention"}:
        raise InputError(f"{source}: layer_types is {kinds!r}, which is not implemented")
    return {"sliding_window": window, "layer_types": kinds}


def interval_of(flags: list[Any], wanted: Any, name: str, source: str) -> int | None:
    """The n for which every n-th of `flags` is `wanted` and no other; None where none is.

    Raises `InputError`, naming the field `name`, where there is no such n.
    """
    places = [index + 1 for index, flag in enumerate(flags) if flag == wanted]
    if not places:
        return None
    every = places[0]
    if places != list(range(every, len(flags) + 1, every)):
        raise InputError(
            f"{source}: {name} is {flags!r}, this backbone implements every n-th layer only"
        )
    return every
