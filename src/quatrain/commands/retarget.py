"""`quatrain retarget`: the other activation scheme, from the artifact alone."""

from pathlib import Path
from typing import Annotated

import typer

from quatrain.commands._common import Debug, Json, Model, human_bytes, print_json


def retarget(
    model: Model,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.PTE")],
    linear_scheme: Annotated[
        str | None,
        typer.Option(metavar="SCHEME", help="weight-only or 8da4w, for the selected linears."),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(metavar="0-3,5", help="Only the linears of these layers.")
    ] = None,
    linears: Annotated[
        str,
        typer.Option(
            metavar="PATTERNS",
            help="Only linears whose role or name matches, such as 'q,k,v' or '*.wo'.",
        ),
    ] = "*",
    zero_point_dtype: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="Of 8da4w activations: int8 (for new ones), float16 or float32.",
        ),
    ] = None,
    slim: Annotated[
        bool,
        typer.Option("--slim", help="Compute and store nothing twice; results stay the same."),
    ] = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Turn a finished Vulkan program from one activation scheme into the other.

    Works on the artifact alone, ours or ExecuTorch's own: weights and scales stay as they are,
    byte for byte. With `--layers` or `--linears` only some linears change.

    Example: `quatrain retarget model.pte --linear-scheme weight-only -o model-wo.pte`
    """
    from quatrain.errors import InputError
    from quatrain.program import open_program
    from quatrain.program.retarget import Selection, parse_layers
    from quatrain.program.retarget import retarget as change_scheme
    from quatrain.program.slim import slim as make_slim

    if linear_scheme is None and not slim:
        raise InputError("nothing to do: give --linear-scheme weight-only or 8da4w, or --slim")
    program = open_program(model)
    selection = Selection(
        layers=parse_layers(layers) if layers is not None else None,
        patterns=tuple(part.strip() for part in linears.split(",")),
    )
    changed = []
    if linear_scheme is not None:
        changed = change_scheme(program, linear_scheme, selection, zero_point_dtype)
    slimmed = make_slim(program) if slim else None
    program.write(output)
    before, after = len(program.data), output.stat().st_size
    if json_output:
        print_json(
            {
                "output": output,
                "changed": [linear.name for linear in changed],
                "linear_scheme": linear_scheme,
                "bytes_before": before,
                "bytes_after": after,
                "removed_operators": slimmed.operators if slimmed else 0,
                "removed_constant_bytes": slimmed.constant_bytes if slimmed else 0,
            }
        )
        return
    if linear_scheme is not None:
        print(f"{len(changed)} linears changed to {linear_scheme}")
    if slimmed:
        saved = human_bytes(slimmed.constant_bytes)
        print(f"{slimmed.operators} operators and {saved} of constants removed")
    print(f"{output}: {human_bytes(after)}, was {human_bytes(before)}")
