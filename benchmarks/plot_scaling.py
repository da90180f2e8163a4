"""Draws how exports scale, ours and the peer's, from what export.py and shapes.py measured.

python benchmarks/plot_scaling.py           results/*.json -> docs/export-scaling.png
"""

import json
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

HERE = Path(__file__).parent
OUTPUT = HERE.parent / "docs" / "export-scaling.png"
FIGURES = {"wall_s": "wall seconds", "peak_rss_mb": "peak memory, MB"}
SERIES = {
    ("ours", "vulkan"): ("tab:blue", "o"),
    ("ours", "xnnpack"): ("tab:green", "s"),
    ("peer", "vulkan"): ("tab:red", "^"),
    ("peer", "xnnpack"): ("tab:orange", "v"),
}


def main() -> None:
    rows = read_rows()
    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = figure.subplots(2, 2)
    for row_of_axes, (figure_name, label) in zip(axes, FIGURES.items(), strict=True):
        depths = [row for row in rows if row["width"] == "SmolLM2-135M"]
        draw(row_of_axes[0], depths, "layers", figure_name, label)
        draw(row_of_axes[1], rows, "parameters", figure_name, label)
    axes[0][0].legend(frameon=False)
    axes[0][0].set_title("layers of SmolLM2-135M's width")
    axes[0][1].set_title("SmolLM2-135M to Llama-3.1-8B")
    figure.savefig(OUTPUT, dpi=110)
    print(f"written: {OUTPUT}")


def read_rows() -> list[dict]:
    """Every measured export of 8da4w, or of weight-only where 8da4w was measured otherwise."""
    shapes = json.loads((HERE / "results" / "shapes.json").read_text())
    rows = [{**row, "who": "ours", "width": row["shape"]} for row in shapes["rows"]]
    rows += [{**row, "who": "peer", "width": "SmolLM2-135M"} for row in shapes["peer"]]
    smollm2 = next(row for row in rows if row["layers"] == 30)
    for name, row in json.loads((HERE / "results" / "export.json").read_text())["peer"].items():
        shape = {key: smollm2[key] for key in ("layers", "parameters", "width")}
        rows.append({**row, **shape, "who": "peer", "backend": name.partition(" ")[0]})
    return rows


def draw(axes: Axes, rows: list[dict], across: str, up: str, label: str) -> None:
    for (who, backend), (color, marker) in SERIES.items():
        points = sorted(
            (row[across], row[up]) for row in rows if (row["who"], row["backend"]) == (who, backend)
        )
        if points:
            axes.plot(*zip(*points, strict=True), color=color, marker=marker,
                      label=f"{who}, {backend}")  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(across)
    axes.set_ylabel(label)
    axes.grid(alpha=0.3, which="both")


if __name__ == "__main__":
    main()
