"""Reads one field of a `params.json`: a JSON value as the Python type that the field has."""

import sys
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from quatrain.errors import InputError

_LARGEST = 2**63 - 1


def typed_value(name: str, value: Any, kind: Any, source: str, zero: bool = False) -> Any:
    """`value` as `kind`: bool, int, float, a Literal, tuple[X, ...], dict[int, int], or one of
    these or None. Numbers are positive and finite; `zero` allows 0 too.

    Raises `InputError`, naming `source` and the field, if it is not.
    """
    if isinstance(kind, UnionType):
        kind = get_args(kind)[0]
    origin = get_origin(kind)
    if origin is Literal:
        if value not in get_args(kind):
            expected = ", ".join(map(repr, get_args(kind)))
            raise InputError(f"{source}: '{name}' is {value!r}, expected one of {expected}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise InputError(f"{source}: '{name}' is {value!r}, expected a list")
        return tuple(typed_value(name, item, get_args(kind)[0], source, zero) for item in value)
    if origin is dict:
        return _token_map(name, value, source)
    if kind is bool:
        if not isinstance(value, bool):
            raise InputError(f"{source}: '{name}' is {value!r}, expected a bool")
        return value
    return _number(name, value, kind, source, zero)


def _number(name: str, value: Any, kind: Any, source: str, zero: bool) -> Any:
    allowed = int if kind is int else int | float
    if not isinstance(value, allowed) or isinstance(value, bool):
        raise InputError(f"{source}: '{name}' is {value!r}, expected a {kind.__name__}")
    # Python's integers, of any size, would overflow when they are multiplied.
    largest = _LARGEST if isinstance(value, int) else sys.float_info.max
    if not 0 < value <= largest and not (zero and value == 0):
        raise InputError(f"{source}: '{name}' is {value!r}, expected a positive finite number")
    return kind(value)


def _token_map(name: str, value: Any, source: str) -> dict[int, int]:
    """{"0": 221, "1": 7}: every row from 0 up, each to a token id of its own."""
    if not isinstance(value, dict):
        raise InputError(f"{source}: '{name}' is {value!r}, expected an object of row to token id")
    try:
        rows = {int(row): token for row, token in value.items()}
    except ValueError:
        raise InputError(f"{source}: '{name}' has a key that is not a row number") from None
    tokens = list(rows.values())
    whole = all(isinstance(token, int) and not isinstance(token, bool) for token in tokens)
    if not rows or sorted(rows) != list(range(len(rows))) or not whole:
        raise InputError(f"{source}: '{name}' must give rows 0, 1, 2, ... a token id each")
    if len(set(tokens)) != len(tokens) or min(tokens) < 0:
        raise InputError(f"{source}: '{name}' gives two rows the same token, or a negative one")
    return dict(sorted(rows.items()))
