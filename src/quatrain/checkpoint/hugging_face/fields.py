"""config.json's fields, each of the type and in the range that it must have."""

import reprlib
from typing import Any, TypeGuard

from quatrain.errors import InputError

Fields = dict[str, Any]  # of a config.json, or of an object in one

_MOST_LAYERS = 10_000  # a list of as many entries is no danger
_LARGEST_INTEGER = 2**31 - 1
_LARGEST_NUMBER = 1e38  # what float32 can hold

_shortened = reprlib.Repr()
_shortened.maxlevel, _shortened.maxlist, _shortened.maxdict = 3, 64, 16
_shortened.maxstring = _shortened.maxlong = _shortened.maxother = 80


def refusal(fields: Fields, name: str, expected: str, source: str) -> InputError:
    """An error that names the field, says what it is (cut short), and what it should be."""
    value = _shortened.repr(fields.get(name))
    return InputError(f"{source}: the field '{name}' is {value}, expected {expected}")


def number(fields: Fields, name: str, source: str) -> float:
    """The field `name`, a positive number. Raises `InputError` for anything else."""
    value = fields.get(name)
    if _is_number(value):
        return value
    raise refusal(fields, name, "a positive number", source)


def number_or_none(fields: Fields, name: str, source: str) -> float | None:
    return None if fields.get(name) is None else number(fields, name, source)


def numbers(fields: Fields, name: str, source: str) -> list[float]:
    """The field `name`, a list of positive numbers."""
    value = fields.get(name)
    if isinstance(value, list) and all(map(_is_number, value)):
        return value
    raise refusal(fields, name, "a list of positive numbers", source)


def integer(fields: Fields, name: str, source: str, least: int = 1) -> int:
    """The field `name`, a whole number, `least` or more."""
    value = fields.get(name)
    if _is_integer(value) and least <= value <= _LARGEST_INTEGER:
        return value
    raise refusal(fields, name, f"a whole number from {least} to {_LARGEST_INTEGER}", source)


def integer_of_layers(fields: Fields, name: str, source: str) -> int:
    """The field `name`, a whole number, or a list of the same one for each layer."""
    value = fields.get(name)
    if isinstance(value, list) and value and value == [value[0]] * layer_count(fields, source):
        return integer({name: value[0]}, name, source)
    return integer(fields, name, source)


def integer_or_none(fields: Fields, name: str, source: str) -> int | None:
    return None if fields.get(name) is None else integer(fields, name, source)


def integers_or_none(fields: Fields, name: str, source: str) -> list[int] | None:
    """The field `name`, a list of whole numbers or null."""
    value = fields.get(name)
    if value is None or (isinstance(value, list) and all(isinstance(item, int) for item in value)):
        return value
    raise refusal(fields, name, "a list of whole numbers", source)


def flag(fields: Fields, name: str, source: str) -> bool:
    """The field `name`, true or false; null is false, and a number true unless it is 0."""
    value = fields.get(name)
    if value is None or isinstance(value, int):  # Llama 4 was released with a 4 for true
        return bool(value)
    raise refusal(fields, name, "true or false", source)


def object_of(fields: Fields, name: str, source: str) -> Fields:
    """The field `name`, an object; {} where it is absent or null."""
    value = fields.get(name)
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    raise refusal(fields, name, "an object or null", source)


def head_width(fields: Fields, source: str) -> int:
    """The channels of a head: head_dim, or what hidden_size leaves each of the heads."""
    return integer_or_none(fields, "head_dim", source) or (
        integer(fields, "hidden_size", source) // integer(fields, "num_attention_heads", source)
    )


def layer_count(fields: Fields, source: str) -> int:
    """num_hidden_layers, so few that a list of as many entries is no danger."""
    layers = integer(fields, "num_hidden_layers", source)
    if layers > _MOST_LAYERS:
        raise InputError(f"{source}: num_hidden_layers is {layers}, which no model has")
    return layers


def _is_integer(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> TypeGuard[float]:
    return (_is_integer(value) or isinstance(value, float)) and 0 < value <= _LARGEST_NUMBER
