"""`quatrain release`: from a model to the files that ship."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quatrain.commands._common import Debug, Json, human_bytes, known_targets, print_json
from quatrain.commands._progress import shown_stages
from quatrain.commands.export import Runtime
from quatrain.commands.quantize import Method
from quatrain.errors import Interrupted
from quatrain.int4 import Scheme

if TYPE_CHECKING:
    from quatrain.release.plan import ReleasePlan
    from quatrain.release.release import Release

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="What `quantize` takes, the word smollm2 included, or `export`."
    ),
]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The folder to write.")]
Spec = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A release.toml: these options by their names, which go first, and more.",
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
    Scheme | None, typer.Option(help="Of the GPUs' programs. Default: what suits each phone.")
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
NoHazards = Annotated[
    bool | None,
    typer.Option("--no-hazards", help="Gate: no known defect is even possible on a phone."),
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
    model: Model,
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
    no_hazards: NoHazards = None,
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
    from quatrain.release.spec import merged_spec

    gates = {
        "max_kl": max_kl, "max_perplexity_ratio": max_perplexity_ratio, "max_mb": max_mb,
        "no_hazards": no_hazards,
    }  # fmt: skip
    given = {
        "phones": _listed(phones), "runtime": runtime, "method": method, "scheme": scheme,
        "reference": reference, "text": text, **gates,
    }  # fmt: skip
    asked = merged_spec(spec, given)
    from quatrain.release.arguments import check_arguments

    check_arguments(None if model == "smollm2" else model, output, asked)
    from quatrain.release.release import make_release, planned_release
    from quatrain.release.store import WORK
    from quatrain.smollm2 import fetch_smollm2

    stages = shown_stages()
    if model == "smollm2":
        with stages("fetch SmolLM2"):
            model, asked = str(fetch_smollm2()), asked.called("smollm2")
    if dry_run:
        plan = planned_release(model, asked)
        print_json(plan.as_dict()) if json else _print_plan(plan)
        return
    try:
        made = make_release(model, output, asked, jobs, stages, android, run_on_phone, ray)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; what is made is kept in {output / WORK}: the same command goes on there"
        ) from None
    print_json(made.as_dict()) if json else _print_release(made)
    if made.failures:
        raise typer.Exit(1)


def _listed(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(one.strip() for one in text.split(",") if one.strip())


def _print_plan(plan: "ReleasePlan") -> None:
    if plan.checkpoint is not None:
        before, after = plan.checkpoint.bytes_in, plan.checkpoint.weights_bytes
        print(f"quantize {plan.source}: {human_bytes(before)} -> {human_bytes(after)}")
    for file in plan.files:
        size, memory = human_bytes(file.bytes.file), human_bytes(file.bytes.memory)
        print(f"{file.file}: {size}, memory {memory} (predicted)")
    _print_phones(plan)


def _print_phones(plan: "ReleasePlan") -> None:
    for phone in plan.phones:
        print(f"{phone.name}: {phone.file}")


def _print_release(made: "Release") -> None:
    print(f"{made.folder}: {len(made.report['files'])} programs")
    for file in made.report["files"]:
        print(f"  {file['file']}: {human_bytes(file['bytes'])}")
        for row in file["quality"]:
            where = f"{row['regime'] or 'any call'}{' on ' + row['as_on'] if row['as_on'] else ''}"
            if row["kl"] is not None:
                ratio = f"{row['ratio']:.3f} +- {row['ratio_error']:.3f}"
                print(f"    {where}: perplexity {ratio} x floating point, KL {row['kl']:.3f} nats")
    _print_phones(made.plan)
    if made.phone is not None:
        same = sum(one["same"] for one in made.phone.answers)
        asked = len(made.phone.answers)
        print(f"on {made.phone.phone}: {same} of {asked} answers are the expected ones")
        prefill, decode = made.phone.speed("prefill"), made.phone.speed("decode")
        if prefill is not None and decode is not None:
            print(f"  as its runner says, prompt {prefill:.1f} and decode {decode:.1f} tokens/s")
    for failure in made.failures:
        print(f"does not hold: {failure}")
    print(f"report: {made.folder / 'report.html'}")
