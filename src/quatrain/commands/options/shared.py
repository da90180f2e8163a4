"""Options that several commands share, and the values that a shell completes."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from quatrain.errors import InputError
from quatrain.runtime.defects import EmulatedDefect, emulated_defect
from quatrain.runtime.devices import DEVICES, parse_device


def one_of(*values: object) -> Callable[[], list[str]]:
    """For an option's `autocompletion`: what a shell offers."""
    return lambda: [str(value) for value in values]


def known_targets() -> list[tuple[str, str]]:
    """The ids of the GPUs and phones that are known, each with its name."""
    from quatrain.targets.catalogue import load_gpus
    from quatrain.targets.phones import load_phones

    return [(one.id, one.name) for one in (*load_gpus(), *load_phones())]


def known_runtimes() -> list[str]:
    """The releases of ExecuTorch in the catalogue."""
    from quatrain.targets.runtimes import known_releases

    return list(known_releases())


def known_device(device: str) -> str:
    """`device`; refused during parsing if there is no runtime of that name."""
    parse_device(device)
    return device


def known_devices(devices: list[str] | None) -> list[str] | None:
    """As `known_device`, where several may be given."""
    return devices and [known_device(device) for device in devices]


def require_target(param: typer.CallbackParam, given: str | None) -> str | None:
    """`given`; refused during parsing, by the option's name, if it is no phone or GPU that is
    known, or one that is sold with two chips."""
    if given is not None:
        from quatrain.targets.phones import find_device

        _require(param, given, find_device)
    return given


def require_targets(param: typer.CallbackParam, given: list[str] | None) -> list[str] | None:
    """As `require_target`, where several may be given, and one with two chips is both."""
    for value in given or ():
        from quatrain.targets.phones import find_devices

        _require(param, value, lambda name: find_devices([name]))
    return given


def _require_runtime(param: typer.CallbackParam, given: str | None) -> str | None:
    if given is not None:
        from quatrain.targets.runtimes import require_release

        _require(param, given, require_release)
    return given


def _require_arithmetic(param: typer.CallbackParam, given: str | None) -> str | None:
    if given is not None:
        from quatrain.targets.as_on import arithmetic_as_on

        _require(param, given, arithmetic_as_on)
    return given


def _require(param: typer.CallbackParam, given: str, require: Callable[[str], object]) -> None:
    """Call `require` with what is given; what it raises does not name the option."""
    try:
        require(given)
    except InputError as error:
        raise InputError(f"{param.opts[0]} {given}: {error}") from error


_DEFECTS = tuple(EmulatedDefect)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="On an error, show the whole traceback.")]
Model = Annotated[
    Path,
    typer.Argument(metavar="MODEL.PTE", help="A program that ExecuTorch can load."),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="auto, gpu (gpu:NAME, see `devices`), reference or executorch.",
        autocompletion=one_of(*DEVICES),
        callback=known_device,
    ),
]
Emulate = Annotated[
    str | None,
    typer.Option(
        metavar="DEFECT",
        help="Compute 8da4w as a phone with a known defect does: "
        f"{', '.join(_DEFECTS[:-1])} or {_DEFECTS[-1]} (docs/devices.md).",
        autocompletion=one_of(*_DEFECTS),
        callback=emulated_defect,
    ),
]

TokenizerFile = Annotated[
    Path | None,
    typer.Option(
        "--tokenizer",
        metavar="FILE",
        help="tokenizer.json, tokenizer.model, vocab.json or tekken.json. Default: the one beside "
        "the model.",
    ),
]

AsOn = Annotated[
    str | None,
    typer.Option(
        metavar="GPU[@RELEASE]",
        help="Compute 8da4w as this GPU or phone does, such as mali-g76@1.5 or pixel-8: a GPU "
        "without integer dot products never quantizes activations. Default: a GPU that "
        "has them.",
        autocompletion=known_targets,
        callback=_require_arithmetic,
    ),
]

Runtime = Annotated[
    str | None,
    typer.Option(
        metavar="VERSION",
        help="The ExecuTorch release in the app, such as 1.3. Default: any.",
        autocompletion=known_runtimes,
        callback=_require_runtime,
    ),
]
