"""The cells of several releases: models x methods x schemes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quatrain.errors import InputError
from quatrain.release.release import name_of
from quatrain.release.spec import ReleaseSpec


@dataclass(frozen=True)
class Cell:
    """One release of several: the name of its folder, its `model` and its `spec`."""

    name: str
    model: str
    spec: ReleaseSpec


def cells_of(
    models: Sequence[str], specs: Sequence[ReleaseSpec], names: Mapping[str, str] | None = None
) -> list[Cell]:
    """Each of `models` with each of `specs`, which differ only in method and scheme; `names` has
    the names of some models.

    A cell is named after its model, and its method and scheme if there are several. Raises
    `InputError` if two names are equal.
    """
    differing = [
        field for field in ("method", "scheme") if len({getattr(spec, field) for spec in specs}) > 1
    ]
    if len(models) > 1 and specs[0].name is not None:
        raise InputError(
            f"name = {specs[0].name!r} is for one model, but {len(models)} are named; leave it out"
        )
    cells: dict[str, Cell] = {}
    for model in models:
        own = (names or {}).get(model) or name_of(model)
        for spec in specs:
            words = [spec.name or own, *(str(getattr(spec, field)) for field in differing)]
            cell = Cell("-".join(words), model, spec.called(own))
            if cell.name in cells:
                raise InputError(
                    f"{model}: its release would be called {cell.name}, as that of "
                    f"{cells[cell.name].model}; give each model another name, and each method and "
                    "scheme once"
                )
            cells[cell.name] = cell
    return list(cells.values())
