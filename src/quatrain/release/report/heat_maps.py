"""Figures by layer and role as heat maps: tables whose cells say the number, and are the darker the
larger it is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_DARKEST = 45  # percent of the colour behind a number, which stays readable on it
Figures = Mapping[str, Sequence[float | None]]  # by role, of each layer


@dataclass(frozen=True)
class Cell:
    """What a cell says, and how dark it is, in percent."""

    text: str
    heat: int


@dataclass(frozen=True)
class HeatMap:
    """`rows`: of each layer a cell for each of `roles`, None where it has no such linear. `most`:
    where the largest is, in words."""

    id: str
    title: str
    said: str
    most: str
    roles: list[str]
    rows: list[list[Cell | None]]


def heat_maps(layers: Mapping[str, Any]) -> list[HeatMap]:
    """Of the weights' error, where they can be compared, and of the largest activations.

    `layers`: as report.json has it.
    """
    tables = [(name, error) for name, error in layers["tables"].items() if error is not None]
    of_tables = "".join(f"; {name} {_short(100 * error)}" for name, error in tables)
    percent = _times(layers["weight_error"] or {}, 100)
    weights = HeatMap(
        "weights",
        "Weight error",
        f"In percent of the weights, root mean squares; by layer and linear{of_tables}.",
        *_drawn(percent, _evenly(percent)),
    )
    largest = _largest(layers["lowest"], layers["highest"])
    activations = HeatMap(
        "activations",
        "Activations",
        f"The largest magnitude that goes into a linear, over {layers['tokens']} tokens in "
        "floating point; darker by orders of magnitude. float16 ends at 65504.",
        *_drawn(largest, _by_orders(largest)),
    )
    return [one for one in (weights, activations) if one.rows]


def _drawn(
    figures: Figures, heats: Mapping[float, int]
) -> tuple[str, list[str], list[list[Cell | None]]]:
    """Where the largest is, the roles, and the rows of a heat map."""

    def cell(value: float | None) -> Cell | None:
        return None if value is None else Cell(_short(value), heats[value])

    rows = [[cell(value) for value in row] for row in zip(*figures.values(), strict=True)]
    places = [
        (value, f"layer {layer}, {role}")
        for role, column in figures.items()
        for layer, value in enumerate(column)
        if value is not None
    ]
    value, place = max(places, default=(0.0, "none"))
    return f"Largest: {_short(value)}, {place}.", list(figures), rows


def _short(value: float) -> str:
    """In few characters, of which one is after the point where that says something."""
    if value < 1:
        return f"{value:.2g}"
    return f"{value:.{1 if value < 100 else 0}f}" if value < 100_000 else f"{value:.0e}"


def _times(figures: Figures, factor: float) -> dict[str, list[float | None]]:
    return {
        role: [None if value is None else value * factor for value in column]
        for role, column in figures.items()
    }


def _largest(lowest: Figures, highest: Figures) -> dict[str, list[float | None]]:
    return {
        role: [
            None if low is None or high is None else max(-low, high)
            for low, high in zip(lowest[role], highest[role], strict=True)
        ]
        for role in highest
    }


def _evenly(figures: Figures) -> dict[float, int]:
    """How dark each value is, from none at the smallest."""
    return _darkness({value: value for value in _values(figures)})


def _by_orders(figures: Figures) -> dict[float, int]:
    """The same where the logarithm counts."""
    return _darkness({value: math.log10(max(value, 1e-9)) for value in _values(figures)})


def _darkness(places: Mapping[float, float]) -> dict[float, int]:
    low = min(places.values(), default=0.0)
    span = max(places.values(), default=0.0) - low or 1.0
    return {value: round(_DARKEST * (place - low) / span) for value, place in places.items()}


def _values(figures: Figures) -> set[float]:
    return {value for column in figures.values() for value in column if value is not None}
