"""The fields of a config.json, checked for type and range."""

import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from quatrain.errors import InputError
from quatrain.json_files import read_object

_MOST_LAYERS = 10_000  # a list of that length fits in memory
_LARGEST_INTEGER = 2**31 - 1
_LARGEST_NUMBER = 1e38  # what float32 can hold

_shortened = reprlib.Repr()
_shortened.maxlevel, _shortened.maxlist, _shortened.maxdict = 3, 64, 16
_shortened.maxstring = _shortened.maxlong = _shortened.maxother = 80


class Fields(Mapping[str, Any]):
    """The fields of a config.json, or of an object in one, by name.

    What looks one up as a number, a flag and so on raises `InputError`, naming the file `source`,
    where it is something else.
    """

    def __init__(self, values: Mapping[str, Any], source: str) -> None:
        self._values, self.source = dict(values), source

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __or__(self, others: Mapping[str, Any]) -> "Fields":
        """These fields, and `others` in place of those of the same names."""
        return Fields({**self, **others}, self.source)

    def refusal(self, name: str, expected: str) -> InputError:
        """An error that names the field, says what it is (cut short), and what it should be."""
        value = _shortened.repr(self.get(name))
        return InputError(f"{self.source}: the field '{name}' is {value}, expected {expected}")

    def number(self, name: str) -> float:
        """The field `name`, a positive number."""
        value = self.get(name)
        if _is_number(value):
            return value
        raise self.refusal(name, "a positive number")

    def number_or_none(self, name: str) -> float | None:
        """As `number`; None where config.json has none."""
        return None if self.get(name) is None else self.number(name)

    def numbers(self, name: str) -> list[float]:
        """The field `name`, a list of positive numbers."""
        value = self.get(name)
        if isinstance(value, list) and all(map(_is_number, value)):
            return value
        raise self.refusal(name, "a list of positive numbers")

    def integer(self, name: str, least: int = 1) -> int:
        """The field `name`, a whole number, `least` or more."""
        value = self.get(name)
        if _is_integer(value) and least <= value <= _LARGEST_INTEGER:
            return value
        raise self.refusal(name, f"a whole number from {least} to {_LARGEST_INTEGER}")

    def integer_of_layers(self, name: str) -> int:
        """The field `name`, a whole number, or a list of the same one for each layer."""
        value = self.get(name)
        if isinstance(value, list) and value and value == [value[0]] * self.layer_count():
            return (self | {name: value[0]}).integer(name)
        return self.integer(name)

    def integer_or_none(self, name: str) -> int | None:
        """As `integer`; None where config.json has none."""
        return None if self.get(name) is None else self.integer(name)

    def integers_or_none(self, name: str) -> list[int] | None:
        """The field `name`, a list of whole numbers or null."""
        value = self.get(name)
        if value is None or (
            isinstance(value, list) and all(isinstance(item, int) for item in value)
        ):
            return value
        raise self.refusal(name, "a list of whole numbers")

    def flag(self, name: str) -> bool:
        """The field `name`, true or false; null is false, and a number true unless it is 0."""
        value = self.get(name)
        if value is None or isinstance(value, int):  # Llama 4 was released with a 4 for true
            return bool(value)
        raise self.refusal(name, "true or false")

    def object_of(self, name: str) -> "Fields":
        """The field `name`, an object; one without fields where it is absent or null."""
        value = self.get(name)
        if not isinstance(value, dict | None):
            raise self.refusal(name, "an object or null")
        return Fields(value or {}, self.source)

    def head_width(self) -> int:
        """The channels of a head: head_dim, or what hidden_size leaves each of the heads."""
        return self.integer_or_none("head_dim") or (
            self.integer("hidden_size") // self.integer("num_attention_heads")
        )

    def layer_count(self) -> int:
        """num_hidden_layers, limited so that a list of that length fits in memory."""
        layers = self.integer("num_hidden_layers")
        if layers > _MOST_LAYERS:
            raise InputError(
                f"{self.source}: num_hidden_layers is {layers}, which is too many for any model"
            )
        return layers


def read_fields(path: Path) -> Fields:
    """The fields of the object in the file `path`. Raises `InputError` if it is none."""
    return Fields(read_object(path), str(path))


def _is_integer(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> TypeGuard[float]:
    return (_is_integer(value) or isinstance(value, float)) and 0 < value <= _LARGEST_NUMBER
