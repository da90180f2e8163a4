"""The contents of a program, with the defects by which it fails on every phone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quatrain.program import open_program
from quatrain.program.inspect.html import write_page
from quatrain.program.inspect.report import ProgramReport, inspect_program
from quatrain.targets.doctor import Finding, fatal_findings


@dataclass(frozen=True)
class Inspection:
    """The report on a program, and the defects by which it fails on every phone."""

    report: ProgramReport
    fatal: list[Finding]

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for JSON."""
        return self.report.as_dict() | {"fatal": [finding.as_dict() for finding in self.fatal]}


def inspect_file(model: Path, html: Path | None = None) -> Inspection:
    """The inspection of the program at `model`; the report as one page too, written to `html`.

    Raises `InputError` as `open_program`.
    """
    program = open_program(model)
    inspection = Inspection(inspect_program(program), fatal_findings(program))
    if html is not None:
        write_page(program, html)
    return inspection
