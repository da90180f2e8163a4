"""`quatrain selftest`: every GPU kernel against float64, on this machine's GPU."""

from typing import TYPE_CHECKING, Annotated

import typer

from quatrain.commands.options.shared import Debug, Json
from quatrain.commands.printing.progress import shown_stages
from quatrain.commands.printing.results import print_json, print_table

if TYPE_CHECKING:
    from quatrain.runtime.wgpu.selftest import SelftestReport

Adapter = Annotated[
    str | None, typer.Option(help="Name or number of a GPU, from `quatrain devices`.")
]


def selftest(
    adapter: Adapter = None,
    kernel: Annotated[
        str | None, typer.Option(help="Test only kernels whose name contains this.")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare every GPU kernel with float64 on the CPU, on shapes that are likely to fail.

    Run it first on a new driver. Exits with 1 if a kernel is wrong.

    Example: `quatrain selftest --kernel linear`
    """
    from quatrain.errors import CheckFailed
    from quatrain.runtime.wgpu.selftest import run_selftest

    report = run_selftest(adapter, kernel or "", shown_stages())
    if json:
        print_json(report.as_dict())
    else:
        _print_table(report)
    if report.failures:
        raise CheckFailed(
            f"{len(report.failures)} cases are wrong on {report.adapter.name}: "
            f"{', '.join(report.failures[:8])}. Update the driver, or use --device reference."
        )


def _print_table(report: "SelftestReport") -> None:
    from rich.table import Table
    from rich.text import Text

    title = report.adapter.name
    table = Table("kernel", "type", "cases", "worst error", "allowed", "", title=title)
    for r in report.kernels:
        verdict = Text("wrong", style="red") if r.failures else "ok"
        error = f"{r.worst:.1e}" if r.cases else "-"
        table.add_row(r.kernel, r.dtype, str(r.cases), error, f"{r.allowed:.0e}", verdict)
    print_table(table)
    if not report.adapter.fp16:
        typer.echo("This adapter has no fp16; programs in fp16 run widened to fp32 on it.")
