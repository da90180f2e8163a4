"""Makes several releases, models x methods x schemes, each in its own folder.

DIR/CELL/        a release, as `make_release` writes it; CELL such as smollm2-gptq-8da4w
DIR/report.*     which cell's file goes to which phone, for each model
DIR/manifest.json, last: the cells, each with the SHA-256 of its own manifest.json
"""

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quatrain.atomic_files import whole_file
from quatrain.errors import InputError, remedy_for
from quatrain.json_files import read_object, write_json
from quatrain.quantize.output.resumable import sha256_of
from quatrain.release.arguments import check_arguments, check_workers, require_own_folder
from quatrain.release.manifest import SEVERAL
from quatrain.release.matrix.cells import Cell
from quatrain.release.matrix.report import matrix_report, phones_of
from quatrain.release.plan import ReleasePlan
from quatrain.release.release import Release, make_release, planned_release
from quatrain.release.report.page import rendered
from quatrain.release.tasks.store import MANIFEST, WORK, held_alone, versions
from quatrain.stages import Stages


@dataclass(frozen=True)
class Matrix:
    """Several releases that were made, by their cells' names, and what report.json says."""

    folder: Path
    releases: dict[str, Release]
    report: dict[str, Any]

    @property
    def failures(self) -> list[str]:
        """What does not hold, each with its cell's name before it."""
        return [f"{name}: {said}" for name, made in self.releases.items() for said in made.failures]

    def as_dict(self) -> dict[str, Any]:
        """The releases as plain data, ready for JSON."""
        said = {"folder": self.folder, "passed": not self.failures}
        return said | self.report | {"failures": self.failures}


def planned_matrix(cells: Sequence[Cell], output: Path) -> dict[str, ReleasePlan]:
    """What `make_matrix` would write, by cell; raises `InputError` as it does."""
    require_own_folder(output, None, SEVERAL)
    for cell in cells:
        check_arguments(cell.model, output / cell.name, cell.spec)
    return {cell.name: planned_release(cell.model, cell.spec) for cell in cells}


def make_matrix(
    cells: Sequence[Cell],
    output: Path,
    jobs: int | None = None,
    stages: Stages | None = None,
    ray: str | None = None,
) -> Matrix:
    """Make the releases of `cells` in folders of `output`, and what says which to take.

    One after the other, and on a Ray cluster, whose address is `ray`, all at a time. If it is
    stopped at any moment, the same call resumes it; cells of earlier runs are removed at the end.
    `jobs` and `stages` are `make_release`'s. Raises `InputError` as it does, of any cell before the
    work on the first.
    """
    check_workers(jobs, ray)
    stages = stages or Stages()
    with stages("plan"):
        planned_matrix(cells, output)
    with held_alone(output / WORK):
        releases = _made(cells, output, jobs, stages, ray)
        report = matrix_report(cells, {name: made.report for name, made in releases.items()})
        _publish(output, cells, report)
    return Matrix(output, releases, report)


def _made(
    cells: Sequence[Cell], output: Path, jobs: int | None, stages: Stages, ray: str | None
) -> dict[str, Release]:
    def made(cell: Cell, heard: Stages) -> Release:
        return make_release(cell.model, output / cell.name, cell.spec, jobs, heard, ray=ray)

    if ray is None:
        return {cell.name: made(cell, _stages_of_cell(stages, cell.name)) for cell in cells}
    # Threads that wait for the cluster; only one thread reports stages.
    with stages(f"on Ray: {len(cells)} releases"), ThreadPoolExecutor(len(cells)) as pool:
        waiting = {cell.name: pool.submit(made, cell, Stages()) for cell in cells}
        return {name: future.result() for name, future in waiting.items()}


def _stages_of_cell(stages: Stages, cell: str) -> Stages:
    """Stages that report to the listeners of `stages`, with the name of the cell."""

    def named(listener: Callable[..., None] | None) -> Callable[..., None] | None:
        return listener and (lambda name, *said: listener(f"{cell}: {name}", *said))

    return Stages(named(stages.listener), named(stages.progress), elapsed=named(stages.elapsed))


def _publish(folder: Path, cells: Sequence[Cell], report: dict[str, Any]) -> None:
    """Write the pages, remove the cells of an earlier time, and write the manifest."""
    earlier = read_object(folder / MANIFEST)["cells"] if (folder / MANIFEST).is_file() else {}
    said = {
        cell.name: {
            "model": cell.spec.name,
            "method": cell.spec.method,
            "scheme": cell.spec.scheme,
            "manifest": sha256_of(folder / cell.name / MANIFEST).hexdigest(),
        }
        for cell in cells
    }
    try:
        for kind in ("md", "html"):
            page = rendered(f"matrix.{kind}", {"report": report, "phones_of": phones_of})
            with whole_file(folder / f"report.{kind}") as temporary:
                temporary.write_text(page, encoding="utf-8")
        with whole_file(folder / "report.json") as temporary:
            write_json(temporary, report)
        for name in set(earlier) - set(said):
            _remove(folder / Path(name).name)
        manifest = {"format": SEVERAL, "made_with": versions(), "cells": said}
        with whole_file(folder / MANIFEST) as temporary:
            write_json(temporary, manifest)
    except OSError as error:
        raise InputError(
            f"-o {folder}: cannot be written: {error.strerror or error}; {remedy_for(error)}"
        ) from error


def _remove(release: Path) -> None:
    """The files of a release; the folder too, where nothing else is in it."""
    manifest = release / MANIFEST
    if not manifest.is_file():
        return
    for name in [*read_object(manifest)["files"], MANIFEST]:
        (release / Path(name).name).unlink(missing_ok=True)
    shutil.rmtree(release / WORK, ignore_errors=True)
    if not list(release.iterdir()):
        release.rmdir()
