"""`quatrain inspect`: the contents of a program, or the differences of two."""

from pathlib import Path
from typing import Annotated

import typer

from quatrain.commands._before_torch import check_output
from quatrain.commands.options.shared import Debug, Json, Model
from quatrain.commands.printing.results import print_json
from quatrain.errors import InputError


def inspect(
    model: Model,
    other: Annotated[
        Path | None,
        typer.Argument(metavar="[OTHER.PTE]", help="A second program, to compare with the first."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report as one HTML page.")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show the contents of a program: kernels by layer, dispatches, bytes by kind, waste.

    Reads any `.pte`, of Quatrain or ExecuTorch, without its checkpoint. With a second program,
    shows the differences.

    Example: `quatrain inspect model.pte --html model.html`
    """
    if other is not None and html is not None:
        raise InputError("--html shows one program; leave out the second, or use --json")
    if html is not None:
        check_output(html, "--html", model)
    if other is None:
        _inspect(model, html, json)
    else:
        _compare(model, other, json)


def _inspect(model: Path, html: Path | None, json: bool) -> None:
    from quatrain.commands.printing.program import print_fatal, print_report
    from quatrain.targets.inspection import inspect_file

    inspection = inspect_file(model, html)
    if json:
        print_json(inspection.as_dict())
        return
    print_report(inspection.report)
    print_fatal(inspection.fatal)
    if html is not None:
        print(f"\nwritten to {html}")


def _compare(model: Path, other: Path, json: bool) -> None:
    from quatrain.commands.printing.program import print_diff
    from quatrain.program import open_program
    from quatrain.program.inspect.diff import diff_programs

    diff = diff_programs(open_program(model), open_program(other))
    if json:
        print_json(diff.as_dict())
    else:
        print_diff(diff, model, other)
