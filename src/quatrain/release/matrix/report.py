"""Which cell's file goes to which phone, for each model: what several releases come to."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from quatrain.release.matrix.cells import Cell
from quatrain.release.tasks.store import versions

FORMAT = "quatrain-matrix-report-1"
EVERY = "every phone"  # where none is named: what the CPU's program is for
OTHER = "any other phone"  # where some are


def matrix_report(
    cells: Sequence[Cell], reports: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The content of report.json over the `reports` of `cells`, by their names."""
    by_model = dict.fromkeys(cell.model for cell in cells)
    models = [[cell for cell in cells if cell.model == model] for model in by_model]
    return {
        "format": FORMAT,
        "made_with": versions(),
        "cells": [_cell(cell, reports[cell.name]) for cell in cells],
        "models": [
            {
                "model": reports[own[0].name]["name"],
                "phones": _phones(own, reports),
                "other": _other(own, reports),
            }
            for own in models
        ],
    }


def phones_of(model: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of a model of report.json the phones, and after them what all others are."""
    return [*model["phones"], *([model["other"]] if model["other"] else [])]


def _cell(cell: Cell, report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "cell": cell.name,
        "model": report["name"],
        "quantized": report["quantized"] is not None,
        "method": cell.spec.method,
        "scheme": cell.spec.scheme and str(cell.spec.scheme),
        "files": len(report["files"]),
        "failures": report["failures"],
    }


def _phones(
    cells: Sequence[Cell], reports: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Each phone with what every cell has for it, the best first."""
    named = {one["id"]: one["name"] for one in reports[cells[0].name]["phones"]}
    return [_phone(id, name, cells, reports) for id, name in (named or {None: EVERY}).items()]


def _other(
    cells: Sequence[Cell], reports: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any] | None:
    """The same for phones that are not named: the CPU's programs; None without them."""
    own = [reports[cell.name] for cell in cells]
    on_cpu = all(any(file["backend"] == "xnnpack" for file in one["files"]) for one in own)
    return _phone(None, OTHER, cells, reports) if on_cpu and own[0]["phones"] else None


def _phone(
    id: str | None, name: str, cells: Sequence[Cell], reports: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    choices = [_choice(cell.name, reports[cell.name], id) for cell in cells]
    choices.sort(key=_rank)  # as named, where nothing tells them apart
    return {"phone": name, "id": id, "why": _why(choices[0], choices), "choices": choices}


def _choice(cell: str, report: Mapping[str, Any], phone: str | None) -> dict[str, Any]:
    """What `phone` gets in one cell, and how good that is: the largest KL of its arithmetics."""
    if phone is None:
        (file,) = [one for one in report["files"] if one["backend"] == "xnnpack"][:1]
    else:
        (own,) = [one for one in report["phones"] if one["id"] == phone]
        (file,) = [one for one in report["files"] if one["file"] == own["file"]]
    about = (file["file"], f"{file['file']} (", phone)
    failures = [
        gate["said"]
        for gate in report["gates"]
        if not gate["passed"] and (gate["of"] in about or gate["of"].startswith(about[1]))
    ]
    worst = max(file["quality"], key=_divergence)
    kept = ("kl", "kl_error", "ratio")
    said = {"cell": cell, "file": f"{cell}/{file['file']}", "backend": file["backend"]}
    figures = {"bytes": file["bytes"], **{key: worst[key] for key in kept}}
    return said | figures | {"failures": failures}


def _rank(choice: Mapping[str, Any]) -> tuple[bool, bool, float]:
    return bool(choice["failures"]), choice["backend"] != "vulkan", _divergence(choice)


def _divergence(row: Mapping[str, Any]) -> float:
    """The KL; without a bound where it is null, as JSON has what is not finite."""
    return math.inf if row["kl"] is None else row["kl"]


def _why(best: Mapping[str, Any], choices: Sequence[Mapping[str, Any]]) -> str:
    """Why the first of `choices` is first."""
    if best["failures"]:
        return f"none holds what had to hold; of this: {best['failures'][0]}"
    holding = [one for one in choices if not one["failures"]]
    alike = [one for one in holding if one["backend"] == best["backend"]]
    said = [] if len(holding) == len(choices) else [f"{len(holding)} of {len(choices)} hold"]
    if len(alike) < len(holding):
        said.append("it runs on the GPU")
    if best["kl"] is None:
        said.append(
            "the first named; without a model in floating point (--reference) nothing tells them "
            "apart"
        )
    else:
        least = f", the least of {len(alike)}" if len(alike) > 1 else ""
        said.append(f"KL {best['kl']:.4f} nats{least}")
    return "; ".join(said)
