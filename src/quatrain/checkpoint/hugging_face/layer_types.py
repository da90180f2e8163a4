"""Which layers of a model have a sliding window or no rotary embedding."""

from typing import Any

from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.nth_layers import FULL, SLIDING, full_every, is_nth
from quatrain.errors import InputError


def window_of_all(fields: Fields) -> dict[str, Any]:
    """The window of a family in which every layer has one, or none does."""
    window = fields.integer_or_none("sliding_window")
    if window is None:
        return {}
    if FULL in (layer_types(fields) or []):
        raise fields.refusal("layer_types", f"'{SLIDING}' in every layer of such a model")
    return {"sliding_window": window}


def window_of_some(fields: Fields, slides: list[bool]) -> dict[str, Any]:
    """The window of a family in which some layers have one, if `use_sliding_window`: those that
    layer_types names, or, if config.json has none, those of `slides`."""
    used = fields.flag("use_sliding_window")
    window = fields.integer_or_none("sliding_window") if used else None
    kinds = layer_types(fields)
    if kinds is None:
        kinds = [SLIDING if window and layer else FULL for layer in slides]
    if SLIDING not in kinds:
        return {}
    if window is None:
        raise InputError(
            f"{fields.source}: layer_types has sliding layers, but sliding_window and "
            "use_sliding_window give them no window; set both, or use full_attention"
        )
    return {"sliding_window": window, "layer_types": kinds}


def window_where(fields: Fields, slides: list[bool]) -> dict[str, Any]:
    """The window of a family in which some layers have one: those that layer_types names, or, if
    config.json has none, those of `slides`."""
    kinds = layer_types(fields) or [SLIDING if layer else FULL for layer in slides]
    if SLIDING not in kinds:
        return {}
    return {"sliding_window": fields.integer("sliding_window"), "layer_types": kinds}


def window_or_no_rope(fields: Fields, interval: int | None) -> dict[str, Any]:
    """The window of a family whose layers without one have no rotary embedding either: of all but
    those that layer_types names, or, if config.json has none, but every `interval`-th."""
    kinds = layer_types(fields) or full_every(interval, fields.layer_count())
    full = [index for index, kind in enumerate(kinds) if kind == FULL]
    without_rope = interval_of(full, "layer_types", fields)
    windows = window_where(fields | {"layer_types": kinds}, [])
    return windows | {"no_rope_layer_interval": without_rope}


def layer_types(fields: Fields, *others: str) -> list[str] | None:
    """config.json's layer_types, for each layer full attention or one of the `others` (a window),
    or None if it has none."""
    known = [FULL, *(others or (SLIDING,))]
    kinds, layers = fields.get("layer_types"), fields.layer_count()
    if kinds is None:
        return None
    if (
        not isinstance(kinds, list)
        or len(kinds) != layers
        or any(kind not in known for kind in kinds)
    ):
        named = " and ".join(map(repr, known))
        expected = f"{layers} of {named}; other types are not implemented"
        raise fields.refusal("layer_types", expected)
    return kinds


def no_rope_interval(fields: Fields) -> int | None:
    """The n for which every n-th layer has no rotary embedding; None if all layers have one."""
    layers = fields.layer_count()
    rotated = fields.integers_or_none("no_rope_layers")  # by layer, despite its name
    if not rotated:
        return fields.integer("no_rope_layer_interval")
    if len(rotated) < layers:
        raise fields.refusal("no_rope_layers", f"an entry for each of {layers} layers")
    without = [index for index in range(layers) if not rotated[index]]
    return interval_of(without, "no_rope_layers", fields)


def interval_of(indices: list[int], name: str, fields: Fields) -> int | None:
    """The n for which `indices` are exactly every n-th layer; None if there are no indices.

    Raises `InputError`, with the field `name` that said so, where there is no such n.
    """
    if not indices:
        return None
    interval = indices[0] + 1
    layers = range(fields.layer_count())
    if indices != [index for index in layers if is_nth(index, interval)]:
        raise fields.refusal(name, "every n-th layer, as nothing else is implemented")
    return interval
