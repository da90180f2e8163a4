"""`quatrain retarget`: the other activation scheme, repairs and less waste, from the artifact."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quatrain.commands._common import (
    Debug,
    Json,
    Model,
    check_output,
    human_bytes,
    one_of,
    print_json,
)
from quatrain.int4 import Scheme

if TYPE_CHECKING:
    from quatrain.program.inspect.linears import Linear


def retarget(
    model: Model,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.PTE")],
    linear_scheme: Annotated[
        str | None,
        typer.Option(
            metavar="SCHEME",
            help="weight-only or 8da4w, for the selected linears.",
            autocompletion=one_of(*Scheme),
        ),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(metavar="0-3,5", help="Only the linears of these layers.")
    ] = None,
    linears: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERNS",
            help="Only linears whose role or name matches, such as 'q,k,v' or '*.wo'.",
        ),
    ] = None,
    zero_point_dtype: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="Of 8da4w activations' zero points: int8 (as in ExecuTorch's own exports; "
            "what new ones get), float16 or float32 (as in Quatrain's). Changes the zero points "
            "of linears that are 8da4w already too.",
            autocompletion=one_of("int8", "float16", "float32"),
        ),
    ] = None,
    slim: Annotated[
        bool,
        typer.Option("--slim", help="Compute and store nothing twice; results stay the same."),
    ] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Give embeddings the memory layout that the phone's kernel reads; refused where "
            "all have it.",
        ),
    ] = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Turn a finished Vulkan program from one activation scheme into the other.

    Works on the artifact alone, ours or ExecuTorch's own: weights and scales stay as they are,
    byte for byte. With `--layers` or `--linears` only some linears change. `--repair` and
    `--slim` go with it, or alone. A tokenizer beside the program is copied beside the output.

    Example: `quatrain retarget model.pte --linear-scheme weight-only -o model-wo.pte`
    """
    from quatrain.atomic_files import whole_copies
    from quatrain.errors import InputError
    from quatrain.program import open_program, write_program
    from quatrain.program.edit.embedding_layout import repair_program
    from quatrain.program.edit.retarget import Selection, parse_layers
    from quatrain.program.edit.retarget import retarget as change_scheme
    from quatrain.program.edit.slim import slim as make_slim
    from quatrain.tokenizer.files import copies_for

    options = {"--layers": layers, "--linears": linears, "--zero-point-dtype": zero_point_dtype}
    given = [name for name, value in options.items() if value is not None]
    if linear_scheme is None and given:
        raise InputError(
            f"{' and '.join(given)} {'say' if len(given) > 1 else 'says'} what --linear-scheme "
            "changes: give it too, weight-only or 8da4w (--slim and --repair are for the whole "
            "program)"
        )
    if linear_scheme is None and not slim and not repair:
        raise InputError(
            "nothing to do: give --linear-scheme weight-only or 8da4w, --slim or --repair"
        )
    check_output(output, "-o")
    program = open_program(model)
    repaired = repair_program(program) if repair else 0
    if repair and not repaired:
        raise InputError(
            f"{model}: has nothing to repair: the kernel of each of its embeddings reads the "
            "memory layout that it has; leave --repair out"
        )
    changed = []
    if linear_scheme is not None:
        selection = Selection(
            layers=parse_layers(layers) if layers is not None else None,
            patterns=tuple(part.strip() for part in (linears or "*").split(",")),
        )
        changed = change_scheme(program, linear_scheme, selection, zero_point_dtype)
    slimmed = make_slim(program) if slim else None
    tokenizer = copies_for(output, model)
    with whole_copies(tokenizer):
        write_program(program, output)
    before, after = len(program.data), output.stat().st_size
    if json_output:
        print_json(
            {
                "output": output,
                "changed": [linear.name for linear in changed],
                "linear_scheme": linear_scheme,
                "zero_point_dtype": zero_point_dtype,
                "repaired_embeddings": repaired,
                "bytes_before": before,
                "bytes_after": after,
                "removed_operators": slimmed.operators if slimmed else 0,
                "removed_constant_bytes": slimmed.constant_bytes if slimmed else 0,
                "tokenizer_files": list(tokenizer),
            }
        )
        return
    if linear_scheme is not None:
        print(_changes(changed, linear_scheme, zero_point_dtype))
    if repaired:
        what = "embedding" if repaired == 1 else "embeddings"
        print(f"{repaired} {what} repaired: the memory layout is the one that the kernel reads")
    if slimmed:
        saved = human_bytes(slimmed.constant_bytes)
        print(f"{slimmed.operators} operators and {saved} of constants removed")
    print(f"{output}: {human_bytes(after)}, was {human_bytes(before)}")


def _changes(changed: list["Linear"], scheme: str, zero_point_dtype: str | None) -> str:
    """What was done to `changed`, which are as they were before."""
    other = sum(linear.scheme != scheme for linear in changed)
    text = f"{other} linears changed to {scheme}"
    if zero_point_dtype:
        text += f", the zero points of {len(changed) - other} others to {zero_point_dtype}"
    return text
