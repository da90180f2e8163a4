"""Which layers of a model have a sliding window, or no rotary embedding."""

from typing import Any

from quatrain.checkpoint.hugging_face.fields import (
    Fields,
    flag,
    integer,
    integer_or_none,
    integers_or_none,
    layer_count,
    refusal,
)
from quatrain.checkpoint.nth_layers import FULL, SLIDING, full_every, is_nth
from quatrain.errors import InputError


def window_of_all(fields: Fields, source: str) -> dict[str, Any]:
    """The window of a family in which every layer has one, or none does."""
    window = integer_or_none(fields, "sliding_window", source)
    if window is None:
        return {}
    if FULL in (layer_types(fields, source) or []):
        raise refusal(fields, "layer_types", f"'{SLIDING}' in every layer of such a model", source)
    return {"sliding_window": window}


def window_of_some(fields: Fields, slides: list[bool], source: str) -> dict[str, Any]:
    """The window of a family in which some layers have one, if `use_sliding_window`: those that
    layer_types names, or, where config.json has none, those of `slides`."""
    used = flag(fields, "use_sliding_window", source)
    window = integer_or_none(fields, "sliding_window", source) if used else None
    kinds = layer_types(fields, source)
    if kinds is None:
        kinds = [SLIDING if window and layer else FULL for layer in slides]
    if SLIDING not in kinds:
        return {}
    if window is None:
        raise InputError(
            f"{source}: layer_types has sliding layers, and sliding_window and "
            "use_sliding_window give them no window; state both, or full_attention"
        )
    return {"sliding_window": window, "layer_types": kinds}


def window_where(fields: Fields, slides: list[bool], source: str) -> dict[str, Any]:
    """The window of a family in which some layers have one: those that layer_types names, or,
    where config.json has none, those of `slides`."""
    kinds = layer_types(fields, source) or [SLIDING if layer else FULL for layer in slides]
    if SLIDING not in kinds:
        return {}
    return {"sliding_window": integer(fields, "sliding_window", source), "layer_types": kinds}


def window_or_no_rope(fields: Fields, interval: int | None, source: str) -> dict[str, Any]:
    """The window of a family whose layers without one have no rotary embedding either: of all but
    those that layer_types names, or, where config.json has none, but every `interval`-th."""
    kinds = layer_types(fields, source) or full_every(interval, layer_count(fields, source))
    full = [index for index, kind in enumerate(kinds) if kind == FULL]
    without_rope = interval_of(full, "layer_types", fields, source)
    windows = window_where(fields | {"layer_types": kinds}, [], source)
    return windows | {"no_rope_layer_interval": without_rope}


def layer_types(fields: Fields, source: str, *others: str) -> list[str] | None:
    """config.json's layer_types, for each layer full attention or one of the `others` (a window),
    or None where it has none."""
    known = [FULL, *(others or (SLIDING,))]
    kinds, layers = fields.get("layer_types"), layer_count(fields, source)
    if kinds is None:
        return None
    if (
        not isinstance(kinds, list)
        or len(kinds) != layers
        or any(kind not in known for kind in kinds)
    ):
        named = " and ".join(map(repr, known))
        expected = f"{layers} of {named}; nothing else is implemented"
        raise refusal(fields, "layer_types", expected, source)
    return kinds


def no_rope_interval(fields: Fields, source: str) -> int | None:
    """The n for which every n-th layer goes without rotary embedding; None where none does."""
    layers = layer_count(fields, source)
    rotated = integers_or_none(fields, "no_rope_layers", source)  # by layer, despite its name
    if not rotated:
        return integer(fields, "no_rope_layer_interval", source)
    if len(rotated) < layers:
        raise refusal(fields, "no_rope_layers", f"an entry for each of {layers} layers", source)
    without = [index for index in range(layers) if not rotated[index]]
    return interval_of(without, "no_rope_layers", fields, source)


def interval_of(indices: list[int], name: str, fields: Fields, source: str) -> int | None:
    """The n for which `indices` are every n-th layer and no other; None where there are none.

    Raises `InputError`, with the field `name` that said so, where there is no such n.
    """
    if not indices:
        return None
    interval = indices[0] + 1
    layers = range(layer_count(fields, source))
    if indices != [index for index in layers if is_nth(index, interval)]:
        raise refusal(fields, name, "every n-th layer only, which is implemented", source)
    return interval
