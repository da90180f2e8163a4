"""What several verbs share: options, what is refused before any work, and how they print."""

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quatrain.atomic_files import require_name
from quatrain.checkpoint.open import is_program
from quatrain.errors import InputError, Interrupted
from quatrain.json_files import finite
from quatrain.runtime.defects import EmulatedDefect, emulated_defect
from quatrain.runtime.devices import DEVICES, parse_device

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def one_of(*values: object) -> Callable[[], list[str]]:
    """For an option's `autocompletion`: what a shell offers."""
    return lambda: [str(value) for value in values]


def known_targets() -> list[tuple[str, str]]:
    """The ids of the GPUs and phones that are known, each with its name."""
    from quatrain.targets.catalogue import load_gpus
    from quatrain.targets.phones import load_phones

    return [(one.id, one.name) for one in (*load_gpus(), *load_phones())]


def known_runtimes() -> list[str]:
    """The releases of ExecuTorch of which something is known."""
    from quatrain.targets.runtimes import known_releases

    return list(known_releases())


def known_device(device: str) -> str:
    """`device`, refused as it is parsed where no runtime is called so."""
    parse_device(device)
    return device


def known_devices(devices: list[str] | None) -> list[str] | None:
    """As `known_device`, where several may be given."""
    return devices and [known_device(device) for device in devices]


def _known_target(as_on: str | None) -> str | None:
    from quatrain.targets.as_on import arithmetic_as_on

    arithmetic_as_on(as_on)
    return as_on


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
        help="Compute 8da4w as that GPU or phone does, such as mali-g76@1.5 or pixel-8: without "
        "integer dot products it never quantizes activations. Default: a GPU that has them.",
        autocompletion=known_targets,
        callback=_known_target,
    ),
]


def print_json(value: Any) -> None:
    """Print `value` as JSON, alone on standard output, for a machine to read.

    Numbers that are not finite, which JSON has no word for, become null.
    """
    print(json.dumps(finite(value), indent=2, default=str))


def plain_console() -> "Console":
    """Prints texts as they are: names of files, or what a model wrote, may have brackets, which
    rich would take for markup."""
    from rich.console import Console

    return Console(markup=False, emoji=False)


def print_table(table: "Table") -> None:
    """Print `table` with each cell whole: what a column has no room for goes on in a line below,
    where rich would cut the names of operators."""
    for column in table.columns:
        column.overflow = "fold"
    plain_console().print(table)


def print_next(*words: object) -> None:
    """The command that goes on with what was made; a path is no option."""
    said = [f"./{one}" if isinstance(one, Path) and str(one)[0] == "-" else one for one in words]
    print(f"next: quatrain {shlex.join(map(str, said))}")


# What files of a model's folder end in.
_OF_A_MODEL = frozenset(
    (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".gguf", ".json", ".jinja", ".model", ".txt")
)


def check_output(path: Path, option: str, *inputs: Path | None) -> None:
    """Refuse, before any work, a file that could not be written after it, and one that would take
    the place of one of `inputs`, or of what a folder of them holds of its model."""
    require_name(path, f"{option} {path}")
    if path.is_dir():
        raise InputError(f"{option} {path}: is a folder, expected the name of a file to write")
    if not path.parent.is_dir():
        raise InputError(f"{option} {path}: cannot be written: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(
            f"{option} {path}: cannot be written: the folder {path.parent.resolve()} is read-only; "
            "choose another place"
        )
    for read in inputs:
        if read is not None and _takes_its_place(path, read):
            raise InputError(
                f"{option} {path}: would take the place of what is read from {read}; give another "
                "name"
            )


def _takes_its_place(path: Path, read: Path) -> bool:
    if not (path.exists() and read.exists()):
        return False
    if read.is_dir():
        return path.suffix in _OF_A_MODEL and path.parent.samefile(read)
    from quatrain.tokenizer.files import CONFIG, TOKENIZER, beside

    own = [beside(read, name).name for name in (TOKENIZER, CONFIG)]
    named = {"params.json", TOKENIZER, CONFIG, *own}
    return path.samefile(read) or (path.parent.samefile(read.parent) and path.name in named)


def check_program(model: Path) -> None:
    """Refuse, before torch is imported, a program that cannot be read."""
    from quatrain.program.mapped_file import map_program

    map_program(model)


def leave_cores_to_executorch(models: Iterable[Path]) -> None:
    """Have torch and MKL use one OpenMP thread where ExecuTorch's runtime computes all of `models`:
    theirs, in the attention, wait on the cores that its own threads compute on. Not for `verify`
    and `evaluate`, which compute in torch for longer than in the program.

    Before torch is imported, which reads the variable once. What the user set stays.
    """
    from quatrain.program import open_program

    if not any(open_program(model).graphs for model in models):
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def check_tokenizer(tokenizer: Path | None) -> None:
    """Refuse, before torch is imported, a --tokenizer that cannot be opened."""
    if tokenizer is not None:
        from quatrain.tokenizer.files import require_tokenizer

        require_tokenizer(tokenizer)


def check_model(model: Path) -> None:
    """Refuse, before torch is imported, what is neither a program nor a checkpoint."""
    if is_program(model):
        check_program(model)


def is_smollm2(model: Path | str | None) -> bool:
    """Whether `model` is the word for SmolLM2, and no file or folder that is called so."""
    return str(model) == "smollm2" and not Path("smollm2").exists()


def check_no_word(model: Path | str, verb: str) -> None:
    """Refuse the word that `quantize` takes for a model where `verb` takes none."""
    if is_smollm2(model):
        raise InputError(
            "smollm2: is a word for `quantize`, `evaluate` and `release`, and nothing here is "
            f"called so; run `quatrain quantize smollm2 -o smollm2-int4` and {verb} smollm2-int4"
        )


@contextmanager
def goes_on_with(kept: Path) -> Iterator[None]:
    """An interrupt says that the same command goes on with what is in the folder `kept`, if that is
    there."""
    try:
        yield
    except KeyboardInterrupt:
        if not kept.exists():
            raise
        raise Interrupted(
            f"interrupted; the same command goes on where it was, with what is kept in {kept}"
        ) from None


def warn_of_an_idle_defect(
    model: Path, emulate: str | None, as_on: str | None, tokens: int | None = None
) -> None:
    """Say where the defect changed nothing, on prompts of `tokens`: what was asked for did not
    show."""
    from quatrain.program import open_program
    from quatrain.runtime.emulatable import why_unchanged
    from quatrain.targets.as_on import arithmetic_as_on

    if emulate is None:
        return
    reason = why_unchanged(open_program(model), emulate, tokens, arithmetic_as_on(as_on))
    if reason:
        print(f"warning: {reason}", file=sys.stderr)
