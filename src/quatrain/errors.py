"""What Quatrain raises when it cannot do what was asked.

The command line prints the message alone and exits with `exit_code`; a traceback is
shown only under `--debug`.
"""

from collections.abc import Iterable
from typing import Any


class QuatrainError(Exception):
    """Any failure with a message meant for the person who ran the command."""

    exit_code = 1


class InputError(QuatrainError):
    """The request cannot be carried out as given: a file, a tensor or an option is wrong.

    The message names the thing, says what was found and what was expected, and what to do.
    """

    exit_code = 2


class UnknownTokenizer(InputError):
    """A tokenizer is of a kind that is not read; a model's weights need none."""


class Interrupted(QuatrainError):
    """The person stopped it, and something is left of it: the message says what."""

    exit_code = 130


class CheckFailed(QuatrainError):
    """The request was carried out and what it checks does not hold."""

    exit_code = 1


# What Python, numpy and torch raise where the arguments of a program's operator do not fit.
UNFIT = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError)


def require_one_of(name: str, value: Any, allowed: Iterable[Any]) -> None:
    """Refuse, with `InputError`, a `value` of the argument `name` that is none of `allowed`; None
    among these, which leaves it open, is not offered."""
    allowed = tuple(allowed)
    if value not in allowed:
        expected = ", ".join(str(one) for one in allowed if one is not None)
        raise InputError(f"{name} is {value!r}, expected one of {expected}")


def require_several(name: str, value: Any) -> None:
    """Refuse, with `InputError`, one thing where several are expected, `value` of the argument
    `name`: a text would be read letter by letter."""
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise InputError(f"{name} is {value!r}, expected a list or tuple, such as [{value!r}]")
