"""Prints plans and releases of `quatrain release`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from quatrain.human_bytes import human_bytes
from quatrain.with_error import with_error

if TYPE_CHECKING:
    from quatrain.release.matrix.matrix import Matrix
    from quatrain.release.plan import ReleasePlan
    from quatrain.release.release import Release


def warn_of_no_work(**options: object) -> None:
    """Say which of the `options` that were given a dry run leaves unused."""
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if given:
        is_or_are = "is" if len(given) == 1 else "are"
        print(
            f"warning: --dry-run stops before the work that {' and '.join(given)} {is_or_are} for",
            file=sys.stderr,
        )


def print_plan(plan: "ReleasePlan") -> None:
    """What would be written, and how large."""
    if plan.checkpoint is not None:
        before, after = plan.checkpoint.bytes_in, plan.checkpoint.weights_bytes
        print(f"quantize {plan.source}: {human_bytes(before)} -> {human_bytes(after)}")
    for file in plan.files:
        predicted = file.predicted_bytes
        size, memory = human_bytes(predicted.file), human_bytes(predicted.memory)
        print(f"{file.file}: {size}, memory {memory} (predicted)")
    _print_phones(plan)


def _print_phones(plan: "ReleasePlan") -> None:
    for phone in plan.phones:
        print(f"{phone.name}: {phone.file}{f' ({phone.why})' if phone.why else ''}")
    if plan.cpu is not None:
        print(f"{'any other phone' if plan.phones else 'every phone'}: {plan.cpu}")


def print_release(made: "Release", android: Path | None = None) -> None:
    """What was written, into the assets of the module `android` too, and what does not hold."""
    from quatrain.release.android import ASSETS
    from quatrain.release.report.page import figure, files_of_notes

    count = len(made.report["files"])
    print(f"{made.folder}: {count} {'program' if count == 1 else 'programs'}")
    for file in made.report["files"]:
        print(f"  {file['file']}: {human_bytes(file['bytes'])}")
        for row in file["quality"]:
            where = f"{row['regime'] or 'any call'}{' on ' + row['as_on'] if row['as_on'] else ''}"
            if row["kl"] is not None:
                ratio = with_error(figure(row["ratio"], "%.3f"), row["ratio_error"], "%.3f")
                print(f"    {where}: perplexity {ratio} x floating point, KL {row['kl']:.3f} nats")
    for note, files in files_of_notes(made.report["files"]).items():
        print(f"  note on {', '.join(files)}: {note}")
    _print_phones(made.plan)
    if android is not None:
        print(f"assets: {android / ASSETS}")
    if made.phone is not None:
        compared = [one["same"] for one in made.phone.answers if one["same"] is not None]
        empty = len(made.phone.answers) - len(compared)
        said = f"{sum(compared)} of {len(compared)} answers are the expected ones"
        more = f"; {empty} expected to be empty, which is not compared" if empty else ""
        print(f"on {made.phone.phone}: {said}{more}")
        prefill, decode = made.phone.speed("prefill"), made.phone.speed("decode")
        if prefill is not None and decode is not None:
            print(f"  as its runner says, prompt {prefill:.1f} and decode {decode:.1f} tokens/s")
    for failure in made.failures:
        print(f"does not hold: {failure}")
    print(f"report: {made.folder / 'report.html'}")


def print_matrix(made: "Matrix") -> None:
    """Which cell's file goes to which phone, and what does not hold."""
    from quatrain.release.matrix.report import phones_of

    print(f"{made.folder}: {len(made.releases)} releases")
    for model in made.report["models"]:
        for phone in phones_of(model):
            best = phone["choices"][0]
            print(f"{model['model']}, {phone['phone']}: {best['file']} ({phone['why']})")
    for failure in made.failures:
        print(f"does not hold: {failure}")
    print(f"report: {made.folder / 'report.html'}")
