"""`quatrain selftest`: every GPU kernel against float64, on this machine's GPU."""

from dataclasses import asdict
from typing import Annotated

import typer

from quatrain.commands._common import Debug, Json, print_json, shown_stages

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
    """Run every GPU kernel over awkward shapes and compare it with float64 on the CPU.

    The first thing to run on a new driver. Exits with 1 where a kernel is wrong.

    Example: `quatrain selftest --kernel linear`
    """
    from rich.console import Console
    from rich.table import Table

    from quatrain.errors import CheckFailed
    from quatrain.runtime.wgpu.device import Gpu
    from quatrain.runtime.wgpu.selftest import run_selftest

    gpu = Gpu(adapter)
    results = run_selftest(gpu, kernel or "", shown_stages())
    failed = [shape for result in results for shape in result.failures]
    if json:
        kernels = [asdict(result) for result in results]
        print_json({"adapter": gpu.info.name, "kernels": kernels, "passed": not failed})
    else:
        table = Table("kernel", "type", "cases", "worst error", "allowed", "", title=gpu.info.name)
        for r in results:
            verdict = "[red]wrong[/]" if r.failures else "ok"
            error = f"{r.worst:.1e}" if r.cases else "-"
            table.add_row(r.kernel, r.dtype, str(r.cases), error, f"{r.allowed:.0e}", verdict)
        Console().print(table)
        if not gpu.info.fp16:
            typer.echo("This adapter has no fp16; programs in fp16 run widened to fp32 on it.")
    if failed:
        raise CheckFailed(
            f"{len(failed)} cases are wrong on {gpu.info.name}: {', '.join(failed[:8])}. "
            "Update the driver, or use --device reference."
        )
