"""The options of verbs that say what `export` is to make."""

from pathlib import Path
from typing import Annotated

import typer

from quatrain.arithmetic import ActivationDtype, Backend, KvCache
from quatrain.commands._shared_options import known_targets
from quatrain.errors import InputError
from quatrain.int4 import Scheme

Params = Annotated[
    Path | None, typer.Option(metavar="FILE", help="params.json, if not beside the checkpoint.")
]
WeightOnlyLinear = Annotated[
    bool,
    typer.Option(
        "--weight-only-linear",
        help="Floating-point activations times dequantized int4 weights, in place of 8da4w's "
        "dynamic int8 activations. Same checkpoint, another kernel.",
    ),
]
SchemePlanFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.TOML",
        help="Which int4 linear has which scheme, as --linear-scheme auto writes it, or by hand.",
    ),
]
BackendOption = Annotated[Backend, typer.Option(help="What runs the program.")]
DtypeOption = Annotated[
    ActivationDtype | None,
    typer.Option(
        help="What the Vulkan delegate computes and stores in. Default: fp32, or the target's."
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="ID",
        help="Choose scheme, dtype and limits for a phone or its GPU, such as pixel-8, say why, "
        "and refuse what would fail there. An unknown id is answered with all that are known.",
        autocompletion=known_targets,
    ),
]
MaxSeqLen = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Context in tokens. Default: the model's own, at most 2048.", min=3
    ),
]
PrefillChunkSize = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="The most tokens of a call, such as 512: ExecuTorch's runner feeds a longer prompt in "
        "parts, and attention takes less memory, but from 1.3 on it no longer stops where the "
        "context ends. Default: the context.",
        min=3,
    ),
]
EmbeddingInput = Annotated[
    bool, typer.Option("--embedding-input", help="Take [1, T, dim] embeddings, not tokens.")
]
HiddenOutput = Annotated[
    bool, typer.Option("--hidden-output", help="Give final hidden states, not logits.")
]
KvCacheOption = Annotated[
    KvCache | None,
    typer.Option(
        help="Keep keys and values in int8, a scale for each token and head: 3 to 4 times less "
        "memory a token; XNNPACK alone.",
    ),
]
AttentionSink = Annotated[
    str | None,
    typer.Option(
        metavar="SINKS,WINDOW",
        help="Let tokens attend to the first SINKS and the last WINDOW tokens, and keep no others, "
        "such as 4,512; XNNPACK alone.",
    ),
]
AllowFallback = Annotated[
    bool,
    typer.Option(
        "--allow-fallback", help="Let a linear without a kernel run dequantized, and say so."
    ),
]


def one_scheme(weight_only: bool, scheme: str | None, plan: Path | None) -> str | None:
    """The scheme of all linears, "auto", or None. Raises `InputError` where options disagree."""
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
    """What --attention-sink says. Raises `InputError` where that is not two numbers."""
    if given is None:
        return None
    sinks, _, window = given.partition(",")
    if not (sinks.strip().isdecimal() and window.strip().isdecimal()):
        raise InputError(f"--attention-sink is {given!r}, expected SINKS,WINDOW, such as 4,512")
    return int(sinks), int(window)
