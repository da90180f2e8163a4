"""Draws the statistics of activations as a heat map, layers by linear."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from quatrain.atomic_files import whole_file
from quatrain.errors import InputError
from quatrain.program.inspect.role_names import CONV_NAMES, LATENT_NAMES, META_NAMES

if TYPE_CHECKING:  # it takes torch, which a wrong name is refused without
    from quatrain.verify.diagnose.diagnose import ActivationStatistics


def check_drawable(path: Path) -> None:
    """Refuse, with `InputError`, a heat map that `draw_heat_map` cannot write as `path`."""
    if path.suffix.lower() != ".png":
        raise InputError(f"--heat-map {path}: is written as PNG; give it a name that ends in .png")
    if find_spec("matplotlib") is None:
        raise InputError("--heat-map needs matplotlib: pip install matplotlib")


def draw_heat_map(statistics: "list[ActivationStatistics]", path: Path) -> None:
    """Write a heat map (PNG) of layers by linear: negative zero points, and outliers.

    Raises `InputError` as `check_drawable`, and if no linear belongs to a layer.
    """
    check_drawable(path)
    from matplotlib.figure import Figure

    of_linear = {a.name: a for a in statistics if a.name.startswith("layers.")}
    if not of_linear:
        raise InputError("no linear belongs to a layer; there is nothing to draw")
    others = {
        role: name
        for role, name in {**CONV_NAMES, **LATENT_NAMES}.items()
        if any(linear.endswith(name) for linear in of_linear)
    }
    roles = META_NAMES | others
    layers = 1 + max(int(name.split(".")[1]) for name in of_linear)
    figure = Figure(figsize=(max(6.0, 0.3 * layers + 2), 5), layout="constrained")
    panels = (
        ("tokens with a negative zero point", lambda a: a.negative_zero_points, 0.0, 1.0),
        ("largest magnitude / root mean square", lambda a: a.outlier, 0.0, None),
    )
    for axes, (title, pick, low, high) in zip(figure.subplots(2, 1), panels, strict=True):
        rows = [
            [
                pick(of_linear[name])
                if (name := f"layers.{i}.{role}") in of_linear
                else float("nan")
                for i in range(layers)
            ]
            for role in roles.values()
        ]
        image = axes.imshow(rows, aspect="auto", cmap="magma", vmin=low, vmax=high)
        axes.set_yticks(range(len(rows)), list(roles))
        axes.set_xlabel("layer")
        axes.set_title(title)
        figure.colorbar(image, ax=axes)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
