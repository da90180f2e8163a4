"""Figures by layer and role as heat maps: tables whose cells say the number, and are the darker the
larger it is."""

import math
from collections.abc import Callable, Mapping, Sequence
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
    """`rows`: of each layer a cell for each of `roles`, None if it has no such linear. `most`:
    where the largest is, in words."""

    id: str
    title: str
    said: str
    most: str
    roles: list[str]
    rows: list[list[Cell | None]]


def heat_maps(layers: Mapping[str, Any]) -> list[HeatMap]:
    """The heat maps of the weights' error, if they can be compared, and of the largest activations.

    `layers`: as in report.json.
    """
    tables = [(name, error) for name, error in layers["tables"].items() if error is not None]
    of_tables = "".join(f"; {name} {_short(100 * error)}" for name, error in tables)
    weights = _heat_map(
        "weights",
        "Weight error",
        f"In percent of the weights, root mean squares; by layer and linear{of_tables}.",
        _percent(layers["weight_error"] or {}),
        level=float,
    )
    activations = _heat_map(
        "activations",
        "Activations",
        f"The largest magnitude of a linear's inputs, over {layers['tokens']} tokens in floating "
        "point; darker by orders of magnitude. float16 ends at 65504.",
        _largest(layers["lowest"], layers["highest"]),
        level=lambda value: math.log10(max(value, 1e-9)),
    )
    return [one for one in (weights, activations) if one.rows]


def _heat_map(
    id: str, title: str, said: str, figures: Figures, level: Callable[[float], float]
) -> HeatMap:
    """The heat map of `figures`; the darkness of each is its `level` between the lowest and the
    highest."""
    places = [
        (value, f"layer {layer}, {role}")
        for role, column in figures.items()
        for layer, value in enumerate(column)
        if value is not None
    ]
    value, place = max(places, default=(0.0, "none"))
    levels = [level(one) for one, _ in places]
    low = min(levels, default=0.0)
    span = max(levels, default=0.0) - low or 1.0

    def cell(value: float | None) -> Cell | None:
        if value is None:
            return None
        return Cell(_short(value), round(_DARKEST * (level(value) - low) / span))

    rows = [[cell(value) for value in row] for row in zip(*figures.values(), strict=True)]
    return HeatMap(id, title, said, f"Largest: {_short(value)}, {place}.", list(figures), rows)


def _short(value: float) -> str:
    """A short form of the number, with one digit after the point if that is significant."""
    if value < 1:
        return f"{value:.2g}"
    return f"{value:.{1 if value < 100 else 0}f}" if value < 100_000 else f"{value:.0e}"


def _percent(figures: Figures) -> Figures:
    return {
        role: [None if value is None else 100 * value for value in column]
        for role, column in figures.items()
    }


def _largest(lowest: Figures, highest: Figures) -> Figures:
    return {
        role: [
            None if low is None or high is None else max(-low, high)
            for low, high in zip(lowest[role], highest[role], strict=True)
        ]
        for role in highest
    }
