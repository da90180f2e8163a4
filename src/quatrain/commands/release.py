"""`quatrain release`: from a model to the files that ship."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quatrain.commands._before_torch import fetched_smollm2, import_torch, is_smollm2
from quatrain.commands._print_release import (
    print_matrix,
    print_plan,
    print_release,
    warn_of_no_work,
)
from quatrain.commands._printing import goes_on_with, print_json
from quatrain.commands._progress import shown_stages
from quatrain.commands._shared_options import Debug, Json, Runtime, known_targets
from quatrain.commands.quantize import Method
from quatrain.errors import InputError
from quatrain.int4 import Scheme

if TYPE_CHECKING:
    from quatrain.release.matrix.matrix import Matrix
    from quatrain.release.release import Release
    from quatrain.release.spec import ReleaseSpec

SMOLLM2 = "smollm2"

Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL",
        help="What `quantize` takes, the word smollm2 included, or `export`; of several each has "
        "a release in a folder of its own.",
    ),
]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The folder to write.")]
Spec = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A release.toml: these options by their names, and more (docs/release.md). An option "
        "that is given here goes before the file's.",
    ),
]
Phones = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Phones and GPUs with commas between, such as pixel-8,galaxy-s24. Default: none, and "
        "so a program for the CPU alone.",
        autocompletion=known_targets,
    ),
]
SchemeOption = Annotated[
    Scheme | None,
    typer.Option(
        metavar="SCHEME",
        help="8da4w or weight-only, of the GPUs' programs. Default: what suits each phone.",
    ),
]
Reference = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL", help="In floating point, to measure a checkpoint against. Default: MODEL."
    ),
]
Text = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="To measure on. Default: a held-out text of Quatrain's."),
]
MaxKl = Annotated[
    float | None, typer.Option(metavar="NATS", help="Gate: KL divergence from floating point.")
]
MaxRatio = Annotated[
    float | None, typer.Option(metavar="X", help="Gate: perplexity over floating point's.")
]
MaxMb = Annotated[
    float | None, typer.Option(metavar="MB", help="Gate: the size of the largest program.")
]
NoDefects = Annotated[
    bool | None,
    typer.Option("--no-defects", help="Gate: no known defect is even possible on a phone."),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Work on a Ray cluster whose machines share DIR and MODEL; auto: this machine's.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be written, and how large, and stop.")
]
Android = Annotated[
    Path | None,
    typer.Option(metavar="MODULE", help="Add the release to an Android module's assets: app/."),
]
RunOnPhone = Annotated[
    Path | None,
    typer.Option(
        metavar="RUNNER",
        help="Run it with llama_main or the like, built for Android, on the phone that adb sees.",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="How many programs to work on at a time. Default: what pays.", min=1
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
    """Make the files that ship: a program for each phone and the CPU, proved, measured, reported.

    Writes programs, tokenizer, expected.json (what a right phone answers), manifest.json, and the
    report as HTML, Markdown and JSON. Stopped at any moment, the same command goes on where it
    was. Exits 1 where a program is not verified or a gate does not hold.

    Example: `quatrain release smollm2 -o release --phones pixel-8,galaxy-s24 --max-kl 0.2`
    """
    from quatrain.release.arguments import check_workers
    from quatrain.release.spec import merged_specs

    gates = {
        "max_kl": max_kl, "max_perplexity_ratio": max_perplexity_ratio, "max_mb": max_mb,
        "no_defects": no_defects,
    }  # fmt: skip
    given = {
        "phones": _listed(phones), "runtime": runtime, "method": method, "scheme": scheme,
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
                    f"{option} takes one release, and this makes {len(models) * len(specs)}; make "
                    "them without it, then the one to ship again with it, by one MODEL, method and "
                    "scheme and a folder of its own"
                )
        made = _several(models, specs, output, jobs, ray, dry_run, json)
    else:
        made = _one(models[0], specs[0], output, jobs, android, run_on_phone, ray, dry_run, json)
    if made and made.failures:
        raise typer.Exit(1)


def _one(
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
    with goes_on_with(output / WORK):
        made = make_release(model, output, asked, jobs, stages, android, run_on_phone, ray)
    print_json(made.as_dict()) if json else print_release(made, android)
    return made


def _several(
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
    with goes_on_with(output / WORK):
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


def _listed(phones: str | None) -> tuple[str, ...] | None:
    """What --phones names. Raises `InputError` where that is nothing, as of an empty variable."""
    if phones is None:
        return None
    named = tuple(one.strip() for one in phones.split(",") if one.strip())
    if not named:
        raise InputError("--phones names no phone; name some, such as pixel-8, or leave it out")
    return named
