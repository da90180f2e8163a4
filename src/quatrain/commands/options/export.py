"""The options of the commands that describe the program to export."""

from pathlib import Path
from typing import Annotated

import typer

from quatrain.arithmetic import ActivationDtype, Backend, KvCache
from quatrain.commands.options.shared import known_targets, require_target
from quatrain.errors import InputError
from quatrain.int4 import Scheme

Params = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="params.json, if it is not beside the checkpoint."),
]
WeightOnlyLinear = Annotated[
    bool,
    typer.Option(
        "--weight-only-linear",
        help="Use floating-point activations times dequantized int4 weights instead of 8da4w's "
        "dynamic int8 activations: the same checkpoint, another kernel.",
    ),
]
SchemePlanFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.TOML",
        help="The scheme of each int4 linear: a file that --linear-scheme auto wrote, or your own.",
    ),
]
BackendOption = Annotated[Backend, typer.Option(help="The backend that runs the program.")]
DtypeOption = Annotated[
    ActivationDtype | None,
    typer.Option(
        help="The data type in which the Vulkan delegate computes and stores. Default: fp32, "
        "or the target's."
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="ID",
        help="Choose scheme, data type and limits for a phone or its GPU, such as pixel-8, "
        "print the reasons, and refuse what would fail there. An unknown id gives the "
        "list of known ones.",
        autocompletion=known_targets,
        callback=require_target,
    ),
]
MaxSeqLen = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="The context length in tokens. Default: the model's own, at most 2048.",
        min=3,
    ),
]
PrefillChunkSize = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="The most tokens in one call, such as 512. ExecuTorch's runner then reads a "
        "longer prompt in parts, and attention needs less memory; but from 1.3 on the "
        "runner no longer stops at the end of the context. Default: the context.",
        min=3,
    ),
]
EmbeddingInput = Annotated[
    bool, typer.Option("--embedding-input", help="Take embeddings [1, T, dim] instead of tokens.")
]
HiddenOutput = Annotated[
    bool, typer.Option("--hidden-output", help="Return final hidden states instead of logits.")
]
KvCacheOption = Annotated[
    KvCache | None,
    typer.Option(
        help="Store keys and values in int8, with a scale for each token and head: 3 to 4 "
        "times less memory per token; only for XNNPACK.",
    ),
]
AttentionSink = Annotated[
    str | None,
    typer.Option(
        metavar="SINKS,WINDOW",
        help="Attend only to the first SINKS and the last WINDOW tokens, such as 4,512, and "
        "keep no others; only for XNNPACK.",
    ),
]
AllowFallback = Annotated[
    bool,
    typer.Option(
        "--allow-fallback",
        help="Compute a linear that has no kernel with dequantized weights, and report it.",
    ),
]


def one_scheme(weight_only: bool, scheme: str | None, plan: Path | None) -> str | None:
    """The scheme of all linears, "auto", or None. Raises `InputError` if options disagree."""
    stated = {
        "--weight-only-linear": weight_only,
        f"--linear-scheme {scheme}": scheme,
        "--scheme-plan": plan,
    }
    given = [option for option, value in stated.items() if value]
    if len(given) > 1 and not (weight_only and scheme == Scheme.WEIGHT_ONLY and not plan):
        raise InputError(
            f"{' and '.join(given)} each say which scheme a linear has; leave one of them out"
        )
    return Scheme.WEIGHT_ONLY if weight_only else scheme


def sinks_and_window(given: str | None) -> tuple[int, int] | None:
    """What --attention-sink says. Raises `InputError` if that is not two numbers."""
    if given is None:
        return None
    sinks, _, window = given.partition(",")
    if not (sinks.strip().isdecimal() and window.strip().isdecimal()):
        raise InputError(f"--attention-sink is {given!r}, expected SINKS,WINDOW, such as 4,512")
    return int(sinks), int(window)
