"""What `make test` leaves out: slow, and in the main what other tests see too."""

from collections.abc import Iterable

import pytest


def thorough(cases: Iterable[object]) -> list[object]:
    """`cases` of `pytest.mark.parametrize`, which `make thorough` alone runs."""
    return [pytest.param(case, marks=pytest.mark.thorough) for case in cases]
