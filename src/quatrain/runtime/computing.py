"""Names the operator that cannot be computed, such as one of a damaged program."""

from collections.abc import Iterator
from contextlib import contextmanager

from quatrain.errors import InputError


@contextmanager
def computing(what: str) -> Iterator[None]:
    """Turn what Python raises where an operator's arguments do not fit into an `InputError`."""
    try:
        yield
    except (
        LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError,
    ) as error:  # fmt: skip
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{what} cannot be computed: {reason}; is the program damaged?") from error
