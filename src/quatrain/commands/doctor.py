"""`quatrain doctor`: known defects that a program would meet on a device."""

from typing import TYPE_CHECKING, Annotated

import typer

from quatrain.commands.options.shared import (
    Debug,
    Json,
    Model,
    Runtime,
    known_targets,
    require_targets,
)
from quatrain.commands.printing.results import plain_console, print_json
from quatrain.short_lists import and_more

if TYPE_CHECKING:
    from rich.console import Console

    from quatrain.targets import Examination, Finding
    from quatrain.targets.cpu import CpuExamination


def doctor(
    model: Model,
    device: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID",
            help="A phone or its GPU, such as pixel-8 or mali-g715; may be repeated. Default: all "
            "known ones. An unknown id gives the list of known ones.",
            autocompletion=known_targets,
            callback=require_targets,
        ),
    ] = None,
    runtime: Runtime = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Check a program against known defects of the Vulkan runtime and limits of devices.

    Prints each defect that applies with its place, how certain it is, and a fix, and exits with 1
    if there is one. Findings that are only possible, or only slow, do not count and are told in
    short. For a CPU program it prints what an app must link, and what is not known.

    Example: `quatrain doctor model.pte --device mali-g715 --runtime 1.3`
    """
    from quatrain.targets import examine_file

    examination = examine_file(model, device or (), runtime)
    if json:
        print_json(examination.as_dict())
    elif examination.cpu:
        _print_cpu(examination.cpu, examination.external)
    else:
        _print_findings(examination)
    if not examination.passed:
        raise typer.Exit(1)


def _print_cpu(cpu: "CpuExamination", external: list[str]) -> None:
    from quatrain.commands.printing.program import external_text

    print(f"A program for the CPU: {cpu.delegates} calls of {cpu.backend}.")
    for wrong in cpu.wrong:
        print(f"It is computed wrongly: {wrong}")
    for note in cpu.notes:
        print(note)
    for lacking in cpu.lacking:
        print(f"It does not load there: {lacking}; ship a later runtime")
    if external:
        print(f"It needs {external_text(external)}")
    if not cpu.wrong:
        print("None of the known defects is met: they are those of the Vulkan runtime.")
    if cpu.operators:
        calls = ", ".join(f"{name} ({count})" for name, count in cpu.operators.items())
        print(f"Operators outside the delegates, whose kernels the app must link: {calls}")
    print(cpu.not_known)


def _print_findings(examination: "Examination") -> None:
    from quatrain.commands.printing.program import external_text

    console = plain_console()
    gpus = ", ".join(examination.gpus) or "any known device"
    where = f"{gpus}, runtime {examination.runtime or 'unknown'}"
    for phone in examination.phones:
        console.print(str(phone), highlight=False, soft_wrap=True)
    if examination.external:
        console.print(f"not examined: the values of {external_text(examination.external)}")
    applying = [finding for finding in examination.findings if finding.applies]
    others = [finding for finding in examination.findings if not finding.applies]
    count = len(applying)
    said = "1 known defect applies" if count == 1 else f"{count} known defects apply"
    console.print(f"{said} ({where})")
    for finding in applying:
        console.print()
        colour = {"certain": "red", "conditional": "yellow"}[finding.certainty]
        condition = [f"condition: {finding.condition}"] if finding.condition else []
        _print_finding(
            console, finding, colour,
            f"{finding.title}: {finding.consequence}",
            *condition,
            f"devices: {', '.join(finding.gpus) or 'every GPU'}",
            f"where: {and_more(finding.occurrences, 4, '; ')}",
        )  # fmt: skip
        console.print(f"  source: {finding.source}", highlight=False, soft_wrap=True)
    if others:
        do = "does" if len(others) == 1 else "do"
        console.print(f"\n{len(others)} more {do} not fail the check (--json has all about each):")
    for finding in others:
        met_by = and_more(finding.gpus, 3) if finding.gpus else "every GPU"
        _print_finding(console, finding, "dim", f"{finding.title}: {finding.consequence}; {met_by}")


def _print_finding(console: "Console", finding: "Finding", colour: str, *lines: str) -> None:
    from rich.padding import Padding
    from rich.text import Text

    fixed = f"fixed in {finding.fixed_in}" if finding.fixed_in else "no fixed release known"
    certain, named = (finding.certainty, f"{colour} bold"), (finding.defect, "bold")
    console.print(Text.assemble(certain, " ", named, f" ({finding.kind}; {fixed})"))
    for line in lines:  # the second line of each as far in as the first
        console.print(Padding(Text(line), (0, 0, 0, 2), expand=False))
    console.print(f"  fix: {finding.remedy}", highlight=False, soft_wrap=True)
