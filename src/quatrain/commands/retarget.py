"""`quatrain retarget`: the other activation scheme, repairs and less waste, from the artifact."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quatrain.commands._before_torch import check_output
from quatrain.commands.options.shared import Debug, Json, Model, one_of
from quatrain.commands.printing.progress import shown_stages
from quatrain.commands.printing.results import print_json, print_next
from quatrain.errors import InputError
from quatrain.human_bytes import human_bytes
from quatrain.int4 import Scheme

if TYPE_CHECKING:
    from quatrain.program.edit.retarget_file import RetargetReport
    from quatrain.program.edit.slim import Slimmed


Output = Annotated[
    Path,
    typer.Option(
        "-o", "--output", metavar="OUT.PTE",
        help="The program to write; it may be MODEL.PTE, which is then replaced.",
    ),
]  # fmt: skip
LinearScheme = Annotated[
    str | None,
    typer.Option(
        metavar="SCHEME",
        help="weight-only or 8da4w, for the selected linears.",
        autocompletion=one_of(*Scheme),
    ),
]
Layers = Annotated[
    str | None, typer.Option(metavar="0-3,5", help="Only the linears of these layers.")
]
Linears = Annotated[
    str | None,
    typer.Option(
        metavar="PATTERNS",
        help="Only linears whose role or name matches, such as 'q,k,v' or '*.wo'.",
    ),
]
ZeroPointDtype = Annotated[
    str | None,
    typer.Option(
        metavar="TYPE",
        help="The type of the zero points of 8da4w activations: int8 (as in ExecuTorch's own "
        "exports and Quatrain's in fp32; the default for new ones), float16 (as in "
        "Quatrain's in fp16) or float32. Also changes linears that are 8da4w already.",
        autocompletion=one_of("int8", "float16", "float32"),
    ),
]
Slim = Annotated[
    bool,
    typer.Option("--slim", help="Remove what is computed or stored twice; results stay the same."),
]
Repair = Annotated[
    bool,
    typer.Option(
        "--repair",
        help="Give embeddings and group sums the layout that the phone's kernels read, and "
        "results the sizes of the current call; refused if there is nothing to repair.",
    ),
]


def retarget(
    model: Model,
    output: Output,
    linear_scheme: LinearScheme = None,
    layers: Layers = None,
    linears: Linears = None,
    zero_point_dtype: ZeroPointDtype = None,
    slim: Slim = False,
    repair: Repair = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Convert a Vulkan program from one activation scheme to the other.

    Needs only the program, of Quatrain or ExecuTorch; weights and scales stay the same, byte for
    byte. With `--layers` or `--linears` only some linears change. `--repair` and `--slim` work
    together with it or alone. A tokenizer beside the program is copied beside the output.

    Example: `quatrain retarget model.pte --linear-scheme weight-only -o model-wo.pte`
    """
    _check_options(linear_scheme, layers, linears, zero_point_dtype, slim or repair)
    in_place = output.exists() and model.exists() and output.samefile(model)
    check_output(output, "-o", None if in_place else model)
    from quatrain.commands.printing.program import print_fatal
    from quatrain.program import open_program
    from quatrain.program.edit.retarget_file import retarget_file
    from quatrain.program.edit.selection import Selection, parse_layers
    from quatrain.targets.doctor import fatal_findings

    selection = Selection(
        layers=parse_layers(layers) if layers is not None else None,
        patterns=tuple(part.strip() for part in (linears or "*").split(",")),
    )
    with shown_stages()("convert the program"):
        report = retarget_file(
            model, output, linear_scheme, selection, zero_point_dtype, slim, repair
        )
    fatal = fatal_findings(open_program(output))
    if json:
        print_json(report.as_dict() | {"fatal": [finding.as_dict() for finding in fatal]})
    else:
        _print_report(report, model)
        print_fatal(fatal)
        print_next("doctor", output)


def _check_options(
    linear_scheme: str | None,
    layers: str | None,
    linears: str | None,
    zero_point_dtype: str | None,
    whole_program: bool,
) -> None:
    """Refuse options that say nothing without another. `whole_program`: --slim or --repair."""
    options = {"--layers": layers, "--linears": linears, "--zero-point-dtype": zero_point_dtype}
    given = [name for name, value in options.items() if value is not None]
    if linear_scheme is None and given:
        raise InputError(
            f"{' and '.join(given)} {'say' if len(given) > 1 else 'says'} what --linear-scheme "
            "changes: give it too, weight-only or 8da4w (--slim and --repair are for the whole "
            "program)"
        )
    if linear_scheme is None and not whole_program:
        raise InputError(
            "nothing to do: give --linear-scheme weight-only or 8da4w, --slim or --repair"
        )


def _print_report(report: "RetargetReport", model: Path) -> None:
    from quatrain.commands.printing.program import external_text

    if report.scheme is not None:
        print(_changes(report))
    for count, kind, change in (
        (
            report.repaired_embeddings, "embedding",
            "repaired: the memory layout is the one that the kernel reads",
        ),
        (
            report.repaired_sizes, "operator",
            "replaced: results follow the length of a call, and conversions are ones that the "
            "runtime loads",
        ),
        (
            report.repaired_linears, "linear",
            "repaired: scales and sums of groups are stored as they are read",
        ),
    ):  # fmt: skip
        if count:
            print(f"{count} {kind}{'s' * (count > 1)} {change}")
    if report.slimmed:
        print(_removed(report.slimmed))
    sizes = f"{human_bytes(report.bytes_out)}, was {human_bytes(report.bytes_in)}"
    print(f"{report.output}: {sizes}")
    if report.external_constants:
        print(f"it needs, as {model} does, {external_text(report.external_constants)}")


def _removed(slimmed: "Slimmed") -> str:
    if not slimmed.operators and not slimmed.constant_bytes:
        return "nothing removed: no operator and no constant is there twice"
    saved = human_bytes(slimmed.constant_bytes)
    return f"{slimmed.operators} operators and {saved} of constants removed"


def _changes(report: "RetargetReport") -> str:
    other = sum(linear.scheme != report.scheme for linear in report.changed)
    alike = len(report.changed) - other
    parts = [f"{other} linears changed to {report.scheme}"] if other else []
    if alike:
        parts.append(f"the zero points of {alike} changed to {report.zero_point_dtype}")
    return "; ".join(parts) or f"no linear changed: they are {report.scheme} already"
