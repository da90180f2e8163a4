"""Detects the format of a file by its content, because names can be wrong."""

import re
from enum import StrEnum
from pathlib import Path

from quatrain.atomic_files import is_device_or_pipe
from quatrain.checkpoint.files.archives import archive_in, archive_of
from quatrain.checkpoint.files.other_programs import other_program
from quatrain.checkpoint.files.pieces import how_to_join
from quatrain.errors import InputError, shell_word
from quatrain.folder_entries import entries, refuse_broken_link
from quatrain.stand_ins import refuse_stand_in

_OWNER_AND_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_SMOLLM2 = re.compile(r"smollm-?2?(-135m(-instruct)?)?", re.IGNORECASE)
PICKLED = (".bin", ".pth", ".pt", ".ckpt")  # suffixes; the last is Lightning's
_PROGRAM = b"ET12"  # at byte 4 of every .pte file


class Form(StrEnum):
    """What a path is: a file's format, or whose folder it is."""

    PROGRAM = "ExecuTorch program"
    GGUF = "GGUF file"
    SAFETENSORS = "safetensors file"
    PTH = "pth file"
    HUGGING_FACE = "Hugging Face folder"  # it has a config.json
    META = "Meta folder"  # any other: params.json beside tensors, as in Quatrain's own checkpoints
    HUB = "model on the hub"  # hf://owner/name: one of both folders, once it is fetched


def form_of_file(path: Path) -> Form:
    """PROGRAM, GGUF, PTH or SAFETENSORS. Raises `InputError` for a file that is none of them."""
    start = first_bytes(path)
    _refuse_unfinished(path)
    if start[4:8] == _PROGRAM:
        return Form.PROGRAM
    if start[:4] == b"GGUF":
        return Form.GGUF
    if said := other_program(path, start):
        raise InputError(f"{path}: {said}")
    if kind := archive_of(path, start):
        raise InputError(f"{path}: is an archive ({kind}); unpack it, and give its contents")
    if start[:4] == b"PK\x03\x04":
        return Form.PTH
    if start[8:] == b"{":  # after the header's length, which may be any eight bytes
        return Form.SAFETENSORS
    if start[:1] == b"\x80":
        raise InputError(
            f"{path}: is a bare pickle (PyTorch's format before 1.6, or another program's), which "
            "is not supported; save it again with torch.save(state_dict, path) in a current "
            "PyTorch"
        )
    refuse_stand_in(path)
    if path.suffix == ".json":
        raise InputError(
            f"{path}: is a JSON file; if it belongs to a model, give its folder, {path.parent}"
        )
    what = f"is neither a .safetensors, a .pth nor a GGUF file (it starts with {start!r})"
    if remedy := how_to_join(path):
        raise InputError(f"{path}: {what}. {remedy}")
    if not start:
        raise InputError(f"{path}: is empty, expected a model; download or write it again")
    raise InputError(f"{path}: {what}; it may be cut short or of another format")


def _refuse_unfinished(path: Path) -> None:
    """aria2 gives a file its whole length before it has its bytes: what is missing is 0."""
    control = path.with_name(f"{path.name}.aria2")
    if control.is_file():
        raise InputError(
            f"{path}: its download is incomplete, as {control.name} beside it shows; start aria2c "
            f"again with -c, or delete {control.name} if the file is complete"
        )


def is_a_program(path: Path) -> InputError:
    """What says that a program was given where a model or checkpoint is expected."""
    return InputError(
        f"{path}: is an ExecuTorch program; give the model or checkpoint that it was exported from"
    )


def first_bytes(path: Path) -> bytes:
    """The first nine bytes, which identify the format. Raises `InputError` if the file cannot be
    read."""
    if is_device_or_pipe(path):  # which may have nobody at its other end
        raise InputError(
            f"{path}: is a device or a pipe, but models are memory-mapped; write it to a file, "
            "and give that"
        )
    try:
        with path.open("rb") as file:
            return file.read(9)
    except FileNotFoundError:
        refuse_broken_link(path)
        raise InputError(f"{path}: no such file or folder{_meant_by(path)}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _meant_by(path: Path) -> str:
    """What to write where `path` may be meant as a repository: owner/name, of no folder here, or a
    web address; or as the standard input."""
    if str(path) == "-":
        return "; standard input is not supported: write it to a file, and give that"
    if _SMOLLM2.fullmatch(str(path)):
        return "; for SmolLM2, `quantize`, `evaluate` and `release` accept the name smollm2"
    if path.parts[:1] in (("https:",), ("http:",)):
        if path.parts[1:2] == ("huggingface.co",) and len(path.parts) > 3:
            return f"; for a repository on the hub, give hf://{'/'.join(path.parts[2:4])}"
        return "; web addresses are not supported: give a file or folder, or hf://owner/name"
    if not _OWNER_AND_NAME.fullmatch(str(path)) or path.parent.exists():
        return ""
    return f"; for a repository on the Hugging Face hub, give hf://{path}"


# A head of reward models, and torchtune's own form of an adapter, are not the model's either.
_OF_TRAINING = re.compile(
    r"(optimizer|scheduler|sampler|dl_state_dict)(_\d+)?\.(pth?|bin)"
    r"|(scaler|training_args|recipe_state|rng_state(_\d+)?|random_states_\d+|value_head)\.(pth?|bin)"
    r"|value_head\.safetensors|adapter_(model|\d+)\.pt"
)
_UNFINISHED = (".aria2", ".crdownload", ".download", ".incomplete", ".part", ".partial")
_DOWNLOAD = "Download the model's weights"


def _parts_to_merge(folder: Path) -> str | None:
    """What makes a file of weights that training on several devices left in parts."""
    if (folder / "zero_to_fp32.py").is_file():
        return (
            f"Merge the DeepSpeed checkpoint: `cd {shell_word(folder)} && "
            "python zero_to_fp32.py . OUTPUT-DIR`"
        )
    of_parts = [*folder.glob(".metadata"), *sorted(folder.glob("*/.metadata"))]
    if of_parts:
        merge = "python -m torch.distributed.checkpoint.format_utils dcp_to_torch"
        return f"Merge the parts: `{merge} {of_parts[0].parent} {folder / 'model.pt'}`"
    return None


def _current_snapshot(cached: Path) -> Path | None:
    """The snapshot that the folder `cached` of the hub's cache has as that of its main branch."""
    try:
        commit = (cached / "refs" / "main").read_text(encoding="utf-8").strip()
        snapshot = cached / "snapshots" / commit
        return snapshot if commit and snapshot.is_dir() else None
    except (OSError, ValueError):
        return None


def model_below(folder: Path) -> Path | None:
    """Where a model is that `folder` may be meant for: the last of a Trainer's checkpoints, the
    current snapshot in the hub's cache, or another folder a few further down."""
    for cached in (folder, folder.parent):
        snapshot = _current_snapshot(cached)
        if snapshot and folder in snapshot.parents:
            return snapshot
    for below in ("*", "*/*", "*/*/*"):
        found = [
            file.parent
            for name in ("config.json", "params.json", "adapter_config.json")
            for file in folder.glob(f"{below}/{name}")
        ]
        if found:
            return max(found, key=lambda each: (len(each.name), each.name))
    return None


def is_of_training(name: str) -> bool:
    """Whether `name` is a file that transformers' Trainer, accelerate and others write beside a
    model."""
    return _OF_TRAINING.fullmatch(name) is not None


def only_file(folder: Path, suffixes: tuple[str, ...], preferred: str = "") -> Path:
    """The one file in `folder` with one of `suffixes`, or the one called `preferred`.

    Raises `InputError` if there is none, or several.
    """
    if preferred and (folder / preferred).is_file():
        return folder / preferred
    files = [file for file in entries(folder) if file.suffix in suffixes]
    found = [file for file in files if file.is_file() and not is_of_training(file.name)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(file.name for file in found) or "none"
    remedy = "keep only the model's own, or merge the shards of the model first"
    if not found:
        for file in files:
            refuse_broken_link(file)
        there = ", ".join([file.name for file in entries(folder)][:8]) or "nothing"
        below = model_below(folder)
        otherwise = f"Give {below}, which holds a model" if below else _DOWNLOAD
        unfinished = next((file for file in entries(folder) if file.suffix in _UNFINISHED), None)
        if packed := archive_in(folder):
            otherwise = f"Unpack {packed.name} there"
        if unfinished:
            otherwise = f"Finish the download of {unfinished.name}"
        remedy = f"the folder holds {there}. {_parts_to_merge(folder) or otherwise}"
        gguf = next(iter(entries(folder, "*.gguf")), None)
        if gguf is not None:
            remedy += f", or give {gguf} itself"
    raise InputError(
        f"{folder}: expected one {' or '.join(suffixes)} file, found {names}; {remedy}"
    )
