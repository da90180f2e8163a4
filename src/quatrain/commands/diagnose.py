"""`quatrain diagnose`: statistics of int8 activations, linear by linear."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quatrain.commands._before_torch import check_model, check_output, import_torch, refuse_smollm2
from quatrain.commands.options.shared import Debug, Json, TokenizerFile
from quatrain.commands.printing.progress import shown_stages
from quatrain.commands.printing.results import print_columns, print_json
from quatrain.text_files import read_text

if TYPE_CHECKING:
    from quatrain.verify.diagnose.diagnose import ActivationStatistics


def diagnose(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="An int4 checkpoint or a Vulkan program.")
    ],
    text: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The text to run. Default: three sentences.")
    ] = None,
    heat_map: Annotated[
        Path | None, typer.Option(metavar="OUT.PNG", help="Write a heat map, layers by linear.")
    ] = None,
    tokenizer: TokenizerFile = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show the int8 activations of each linear: zero points, ranges, outliers.

    The defect dq8ca-zp-binding-float garbles negative zero points. Outliers reduce the resolution
    of all other values.

    Example: `quatrain diagnose smollm2-int4 --heat-map layers.png`
    """
    from quatrain.verify.diagnose.heat_map import check_drawable, draw_heat_map

    if heat_map:
        check_output(heat_map, "--heat-map", model, text, tokenizer)
        check_drawable(heat_map)
    words = read_text(text) if text else None
    refuse_smollm2(model, "diagnose")
    check_model(model)
    import_torch()
    from quatrain.verify.diagnose.diagnose import diagnose_activations

    found = diagnose_activations(model, words, shown_stages(), tokenizer)
    if heat_map:
        draw_heat_map(found, heat_map)
    if json:
        print_json({"linears": [asdict(one) for one in found]})
        return
    _print_table(found)
    if heat_map:
        print(f"{heat_map}: heat map")


def _print_table(found: "list[ActivationStatistics]") -> None:
    columns = "linear", "zero pt < 0", "lowest", "highest", "outlier", "to zero"
    cells: list[tuple[str, ...]] = [columns]
    for a in found:
        ranges = f"{a.negative_zero_points:.0%}", f"{a.lowest:.2f}", f"{a.highest:.2f}"
        cells.append((a.name, *ranges, f"{a.outlier:.0f}x", f"{a.to_zero:.1%}"))
    print_columns(cells)
    negative = sum(a.negative_zero_points for a in found) / max(1, len(found))
    print(f"{len(found)} linears; {negative:.0%} of all zero points are negative")
    print("in 8da4w a phone rounds them to int8 in prefill alone, in calls of two tokens")
    print("or more, and never in decode")
    one_row = [a.name for a in found if not a.quantized_in_prefill]
    if one_row:
        print(f"never rounded, not in prefill either, as they see one row: {', '.join(one_row)}")
