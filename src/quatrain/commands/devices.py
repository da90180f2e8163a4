"""`quatrain devices`: the GPUs that can run a program here, and what each offers."""

import typer

from quatrain.commands.options.shared import Debug, Json
from quatrain.commands.printing.progress import said_where_slow
from quatrain.commands.printing.results import print_json, print_table
from quatrain.human_bytes import human_bytes


def devices(json: Json = False, debug: Debug = False) -> None:
    """List the GPU adapters that `--device gpu` can use, best first.

    Choose one by its name or number: `run --device gpu:1`, `selftest --adapter 1`. An adapter of
    kind CPU is a software implementation, such as llvmpipe. `run --profile` needs timestamps.

    Example: `quatrain devices`
    """
    from rich.table import Table

    with said_where_slow("ask the drivers"):
        from quatrain.runtime.wgpu.adapters import list_adapters

        adapters = list_adapters()
    if json:
        print_json({"adapters": [adapter.as_dict() for adapter in adapters]})
        return
    if not adapters:
        typer.echo(
            "no adapter found. On Debian, `apt-get install mesa-vulkan-drivers` gives one "
            "that runs on the CPU; programs also run with --device reference."
        )
        return
    table = Table("", "adapter", "kind", "backend", "driver", "offers", "largest buffer")
    for i, a in enumerate(adapters):
        offered = [name for name in ("fp16", "subgroups", "timestamps") if getattr(a, name)]
        size = human_bytes(min(a.max_binding, a.max_buffer))
        table.add_row(str(i), a.name, a.kind, a.backend, a.driver, "\n".join(offered), size)
    print_table(table)
