"""Errors that name the operator that cannot be computed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from quatrain.errors import UNFIT, InputError


def cannot_compute(what: str, error: Exception) -> InputError:
    """The `InputError` that says why `what` cannot be computed."""
    reason = f"{type(error).__name__}: {error}"
    return InputError(f"{what} cannot be computed: {reason}; is the program damaged?")


@contextmanager
def computing(what: str) -> Iterator[None]:
    """Turn an error of `UNFIT` into an `InputError` that names `what`."""
    try:
        yield
    except UNFIT as error:
        raise cannot_compute(what, error) from error


def has_room(shape: Sequence[int], bound: Sequence[int]) -> bool:
    """Whether a result is as large as the program says, and of that rank: a phone refuses others,
    or cuts them off."""
    return len(shape) == len(bound) and all(a <= b for a, b in zip(shape, bound, strict=True))


def require_room(shape: Sequence[int], bound: Sequence[int]) -> None:
    """Raise `ValueError` if a result has no room."""
    if not has_room(shape, bound):
        raise ValueError(f"gives {list(shape)}, the program has room for {list(bound)}")
