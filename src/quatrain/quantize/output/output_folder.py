"""The folder that a checkpoint is written to: what it may hold already, and what of that goes."""

import os
from pathlib import Path

from quatrain.atomic_files import require_name
from quatrain.errors import InputError
from quatrain.tokenizer.files import CONFIG, TOKENIZER

WEIGHTS, PARAMS, MANIFEST = "model.safetensors", "params.json", "quatrain_manifest.json"

# All that a checkpoint of Quatrain's consists of. Where a new one lacks a file that an earlier one
# had, that file goes: a tokenizer of other weights is worse than none.
OWN_FILES = (WEIGHTS, PARAMS, TOKENIZER, CONFIG, MANIFEST)

_OTHER_WEIGHTS = (".safetensors", ".pth", ".pt", ".bin", ".index.json")


def check_output_folder(output: Path, named: list[Path]) -> None:
    """Raise `InputError` if no checkpoint may be written to `output`, judging only by its contents.

    `named`: the source, and its parameters, as the user names them. `output_folder` checks whether
    one lies in `output`, because it knows the files that are read.
    """
    folder = _resolved(output)
    if not any(folder in (path.resolve(), *_folders_of(path)) for path in named):
        _check_no_other_model(output, folder)


def output_folder(output: Path, sources: list[Path]) -> Path:
    """`output` as an absolute path without links, where a checkpoint made of `sources` may go.

    The folder must be new, hold no model, or hold an earlier checkpoint written by Quatrain, which
    will be replaced. Raises `InputError` if it is a file or a dangling link, contains one of
    `sources`, or holds another model.
    """
    folder = _resolved(output)
    for file in sources:
        if folder in _folders_of(file):
            raise InputError(
                f"{output}: holds the source model ({file.name}), which would be overwritten; "
                "name another folder"
            )
    _check_no_other_model(output, folder)
    return folder


def _resolved(output: Path) -> Path:
    """`output` without links. Raises `InputError` if it is a file, a link to nothing, or no
    name."""
    require_name(output, str(output))
    if output.is_symlink() and not output.exists():
        raise InputError(
            f"{output}: is a link to {output.readlink()}, which does not exist; create that "
            "folder, or name another one"
        )
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file, expected a folder to write into")
    return Path(os.path.realpath(output))


def _folders_of(file: Path) -> tuple[Path, Path]:
    """Where `file` lies, and where it does if it is a link."""
    return file.parent.resolve(), file.resolve().parent


def _check_no_other_model(output: Path, folder: Path) -> None:
    others = _files_of_another_model(folder) if folder.is_dir() else []
    if others:
        raise InputError(
            f"{output}: holds another model ({others[0]}), which the new files would damage; name "
            "another folder"
        )


def _files_of_another_model(folder: Path) -> list[str]:
    """The names of weights, indexes and configurations that are not a checkpoint of Quatrain's."""
    names = sorted(file.name for file in folder.iterdir())
    own = WEIGHTS if PARAMS in names else ""
    return [
        name
        for name in names
        if name == "config.json" or (name.endswith(_OTHER_WEIGHTS) and name != own)
    ]
