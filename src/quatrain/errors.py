"""Exceptions of Quatrain, and checks of arguments.

The command line prints only the message and exits with `exit_code`; `--debug` shows a traceback.
"""

import errno
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

INTERRUPTED = "interrupted; nothing half written is left"  # of Ctrl-C, where a command says no more


class QuatrainError(Exception):
    """A failure whose message is meant for the user."""

    exit_code = 1


class InputError(QuatrainError):
    """The request cannot be carried out: a file, a tensor or an option is wrong.

    The message names it, what was found, what was expected, and what to do.
    """

    exit_code = 2


class UnknownTokenizer(InputError):
    """The tokenizer is of an unsupported kind; the weights can be used without it."""


class AlreadyQuantized(InputError):
    """The model is quantized, and one in floating point is needed."""


class Interrupted(QuatrainError):
    """The user interrupted the work; the message says what remains."""

    exit_code = 130


class CheckFailed(QuatrainError):
    """The request was carried out, and the check failed."""

    exit_code = 1


# What Python, numpy and torch raise where the arguments of a program's operator do not fit.
UNFIT = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError)


def require_one_of(name: str, value: Any, allowed: Iterable[Any]) -> None:
    """Raise `InputError` if the argument `name` has a `value` that is not in `allowed`. None in
    `allowed` means that it may be left out; the message does not offer it."""
    allowed = tuple(allowed)
    if value not in allowed:
        expected = ", ".join(str(one) for one in allowed if one is not None)
        raise InputError(f"{name} is {value!r}, expected one of {expected}")


def require_several(name: str, value: Any) -> None:
    """Raise `InputError` if the argument `name` has a single `value` where a list is expected; a
    text would be read letter by letter."""
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise InputError(f"{name} is {value!r}, expected a list or tuple, such as [{value!r}]")


def require_at_least(least: int, name: str, value: Any) -> None:
    """Raise `InputError` if the argument `name` has a `value` that is no whole number of at least
    `least`."""
    if not isinstance(value, int) or value < least:
        raise InputError(f"{name} is {value!r}, expected {least} or more")


def shell_word(path: Path | str) -> str:
    """`path` as a word of a command that an error gives: quoted where it holds spaces or such."""
    return shlex.quote(str(path))


def remedy_for(error: OSError, instead: str = "choose another place") -> str:
    """What to do about an output that `error` kept from being written: `instead`, and where the
    disk is full also to free some space."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"free some space, or {instead}" if full else instead
