"""The options of `quatrain release`, besides the models."""

from pathlib import Path
from typing import Annotated

import typer

from quatrain.commands.options.shared import known_targets
from quatrain.int4 import Scheme

Output = Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The folder to write.")]
Spec = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A release.toml with these options by name, and more (docs/release.md). Options "
        "given here override it.",
    ),
]
Phones = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Phones and GPUs, separated by commas, such as pixel-8,galaxy-s24. Default: none; "
        "then only a CPU program is made.",
        autocompletion=known_targets,
    ),
]
SchemeOption = Annotated[
    Scheme | None,
    typer.Option(
        metavar="SCHEME",
        help="The scheme of the GPU programs, 8da4w or weight-only. Default: chosen for each "
        "phone.",
    ),
]
Reference = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="The floating-point model to compare a checkpoint with. Default: MODEL.",
    ),
]
Text = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The text to measure quality on. Default: a held-out text that comes with Quatrain.",
    ),
]
MaxKl = Annotated[
    float | None,
    typer.Option(metavar="NATS", help="Gate: the largest KL divergence from floating point."),
]
MaxRatio = Annotated[
    float | None,
    typer.Option(metavar="X", help="Gate: the largest ratio of perplexities to floating point."),
]
MaxMb = Annotated[
    float | None, typer.Option(metavar="MB", help="Gate: the size of the largest program.")
]
NoDefects = Annotated[
    bool | None,
    typer.Option(
        "--no-defects",
        help="Gate: no phone may have a known defect, not even a possible one; needs --phones.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Run on a Ray cluster whose machines share DIR and MODEL; auto: on this machine's.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be written, with sizes, and stop.")
]
Android = Annotated[
    Path | None,
    typer.Option(
        metavar="MODULE", help="Add the release to the assets of this Android module, such as app/."
    ),
]
RunOnPhone = Annotated[
    Path | None,
    typer.Option(
        metavar="RUNNER",
        help="Run the programs on the phone that adb sees, with this runner built for Android, "
        "such as llama_main.",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="How many programs to work on at the same time. Default: the fastest number.",
        min=1,
    ),
]
