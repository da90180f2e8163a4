"""`quatrain logits`: writes logits as a .npy file."""

from pathlib import Path
from typing import Annotated

import typer

from quatrain.commands._before_torch import check_model, check_output, import_torch, refuse_smollm2
from quatrain.commands.options.shared import AsOn, Debug, Device, Json
from quatrain.commands.printing.progress import shown_stages
from quatrain.commands.printing.results import print_json
from quatrain.errors import InputError
from quatrain.int4 import Scheme


def logits(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="A program, or a checkpoint, which is run eagerly."),
    ],
    tokens: Annotated[str, typer.Option(metavar="1,2,3", help="Token ids, comma-separated.")],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="OUT.NPY", help="The NumPy file to write."),
    ],
    scheme: Annotated[
        Scheme | None, typer.Option(help="For a checkpoint: the activation scheme. Default: 8da4w.")
    ] = None,
    device: Device = "auto",
    as_on: AsOn = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the logits after each token: float32 [T, vocab_size], one row per position.

    Example: `quatrain logits smollm2.pte --tokens 1,2,3 -o out.npy`
    """
    ids = _token_ids(tokens)
    check_output(output, "-o", model)
    refuse_smollm2(model, "take the logits of")
    check_model(model)
    import_torch()
    from quatrain.verify.logits import write_logits

    report = write_logits(model, ids, output, scheme, device, as_on, shown_stages())
    if json:
        print_json(report.as_dict())
    else:
        print(f"{output}: float32 {list(report.shape)}")


def _token_ids(tokens: str) -> list[int]:
    try:
        return [int(token) for token in tokens.split(",")]
    except ValueError:
        raise InputError(f"--tokens is {tokens!r}, expected ids such as 1,2,3") from None
