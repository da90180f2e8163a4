"""`quatrain release`: makes the files to ship from a model."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quatrain.commands._before_torch import fetched_smollm2, import_torch, is_smollm2
from quatrain.commands.options.release import (
    Android,
    DryRun,
    Jobs,
    MaxKl,
    MaxMb,
    MaxRatio,
    NoDefects,
    Output,
    Phones,
    Ray,
    Reference,
    RunOnPhone,
    SchemeOption,
    Spec,
    Text,
)
from quatrain.commands.options.shared import Debug, Json, Runtime
from quatrain.commands.printing.progress import shown_stages
from quatrain.commands.printing.release import (
    print_matrix,
    print_plan,
    print_release,
    warn_of_no_work,
)
from quatrain.commands.printing.results import hint_at_resuming, print_json
from quatrain.commands.quantize import Method
from quatrain.errors import InputError
from quatrain.release.keys import naming_keys

if TYPE_CHECKING:
    from quatrain.release.matrix.matrix import Matrix
    from quatrain.release.release import Release
    from quatrain.release.spec import ReleaseSpec

SMOLLM2 = "smollm2"

Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL",
        help="A model as for `quantize`, also smollm2, or a checkpoint as for `export`; each "
        "of several gets a release in its own folder.",
    ),
]


def release(
    models: Models,
    output: Output,
    spec: Spec = None,
    phones: Phones = None,
    runtime: Runtime = None,
    method: Method = None,
    scheme: SchemeOption = None,
    reference: Reference = None,
    text: Text = None,
    max_kl: MaxKl = None,
    max_perplexity_ratio: MaxRatio = None,
    max_mb: MaxMb = None,
    no_defects: NoDefects = None,
    android: Android = None,
    run_on_phone: RunOnPhone = None,
    jobs: Jobs = None,
    ray: Ray = None,
    dry_run: DryRun = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Make the files to ship: a program for each phone and the CPU, verified, measured, reported.

    Writes programs, tokenizer, expected.json (the answers of a correct phone), manifest.json, and
    the report as HTML, Markdown and JSON. If it is interrupted, the same command resumes. Exits
    with 1 if a program is not verified or a gate fails.

    Example: `quatrain release smollm2 -o release --phones pixel-8,galaxy-s24 --max-kl 0.2`
    """
    from quatrain.release.arguments import check_workers
    from quatrain.release.spec import merged_specs

    gates = {
        "max_kl": max_kl, "max_perplexity_ratio": max_perplexity_ratio, "max_mb": max_mb,
        "no_defects": no_defects,
    }  # fmt: skip
    given = {
        "phones": _phone_names(phones), "runtime": runtime, "method": method, "scheme": scheme,
        "reference": reference, "text": text, **gates,
    }  # fmt: skip
    check_workers(jobs, ray)
    if dry_run:
        warn_of_no_work(jobs=jobs, ray=ray, android=android, run_on_phone=run_on_phone)
    specs = _with_smollm2(merged_specs(spec, given))
    if len(models) * len(specs) > 1:
        for option, value in (("--android", android), ("--run-on-phone", run_on_phone)):
            if value is not None:
                raise InputError(
                    f"{option} works with one release, and this command makes "
                    f"{len(models) * len(specs)}; leave it out here, then run release once more "
                    "with it, for the one MODEL, method and scheme to ship and a new folder"
                )
        made = _make_several(models, specs, output, jobs, ray, dry_run, json)
    else:
        made = _make_one(
            models[0], specs[0], output, jobs, android, run_on_phone, ray, dry_run, json
        )
    if made and made.failures:
        raise typer.Exit(1)


@naming_keys()
def _make_one(
    model: str, asked: "ReleaseSpec", output: Path, jobs: int | None, android: Path | None,
    run_on_phone: Path | None, ray: str | None, dry_run: bool, json: bool,
) -> "Release | None":  # fmt: skip
    from quatrain.release.arguments import check_arguments

    check_arguments(None if is_smollm2(model) else model, output, asked)
    import_torch()
    from quatrain.release.release import check_module, make_release, planned_release
    from quatrain.release.tasks.store import WORK

    if android is not None:
        check_module(android)
    stages = shown_stages()
    if is_smollm2(model):
        model, asked = fetched_smollm2(stages), asked.called(SMOLLM2)
    if dry_run:
        plan = planned_release(model, asked)
        print_json(plan.as_dict()) if json else print_plan(plan)
        return None
    with hint_at_resuming(output / WORK):
        made = make_release(model, output, asked, jobs, stages, android, run_on_phone, ray)
    print_json(made.as_dict()) if json else print_release(made, android)
    return made


@naming_keys()
def _make_several(
    models: list[str], specs: "list[ReleaseSpec]", output: Path, jobs: int | None,
    ray: str | None, dry_run: bool, json: bool,
) -> "Matrix | None":  # fmt: skip
    import_torch()
    from quatrain.release.matrix.cells import cells_of
    from quatrain.release.matrix.matrix import make_matrix, planned_matrix
    from quatrain.release.tasks.store import WORK

    stages = shown_stages()
    names = {}
    if any(map(is_smollm2, models)):
        names[fetched := fetched_smollm2(stages)] = SMOLLM2
        models = [fetched if is_smollm2(model) else model for model in models]
    cells = cells_of(models, specs, names)
    if dry_run:
        plans = planned_matrix(cells, output)
        if json:
            print_json({"cells": {name: plan.as_dict() for name, plan in plans.items()}})
            return None
        for name, plan in plans.items():
            print(f"{name}:")
            print_plan(plan)
        return None
    with hint_at_resuming(output / WORK):
        made = make_matrix(cells, output, jobs, stages, ray)
    print_json(made.as_dict()) if json else print_matrix(made)
    return made


def _with_smollm2(specs: "list[ReleaseSpec]") -> "list[ReleaseSpec]":
    """`specs`, with the file in place of the word as what is measured against."""
    if not any(is_smollm2(spec.reference) for spec in specs):
        return specs
    fetched = fetched_smollm2(shown_stages())
    return [
        replace(spec, reference=fetched) if is_smollm2(spec.reference) else spec for spec in specs
    ]


def _phone_names(phones: str | None) -> tuple[str, ...] | None:
    """What --phones names. Raises `InputError` if that is nothing, as of an empty variable."""
    if phones is None:
        return None
    named = tuple(one.strip() for one in phones.split(",") if one.strip())
    if not named:
        raise InputError("--phones names no phone; name some, such as pixel-8, or leave it out")
    return named
