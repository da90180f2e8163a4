"""A figure and its standard error, as people read them."""

import math


def with_error(figure: str, error: float | None, form: str, sign: str = "+-") -> str:
    """`figure`, and after the `sign` its standard `error` in a `form` such as "%.2f"; without it if
    the error is unknown, as for a single token."""
    if error is None or not math.isfinite(error):
        return figure
    return f"{figure} {sign} {form % error}"
