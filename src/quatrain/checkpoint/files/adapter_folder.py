"""Detects a folder that holds an adapter (of PEFT) without its model. Does not import torch."""

import re
from pathlib import Path

from quatrain.checkpoint.files.formats import is_of_training
from quatrain.errors import InputError, shell_word
from quatrain.folder_entries import entries
from quatrain.json_files import read_object

ADAPTER_CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_MLX_WEIGHTS = "adapters.safetensors"
_MLX = re.compile(r"(?:\d+_)?adapters\.safetensors")  # with the steps of training too
_OF_A_MODEL = (".safetensors", ".pth", ".pt", ".bin", ".gguf")


def adapter_files(folder: Path) -> list[Path]:
    """The files of the adapter in `folder`, its settings and its tensors; [] if it holds none, or a
    whole model too."""
    names = _names_in(folder)
    weights = [name for name in _WEIGHTS if name in names]
    if ADAPTER_CONFIG not in names or not weights or _of_a_model(names):
        return []
    return [folder / ADAPTER_CONFIG, folder / weights[0]]


def _names_in(folder: Path) -> set[str]:
    return {file.name for file in entries(folder)} if folder.is_dir() else set()


def may_hold_a_model(name: str) -> bool:
    """Whether a file of that `name` may hold a model's tensors: not those of an adapter, of
    training or of another kind."""
    of_adapter = name in _WEIGHTS or _MLX.fullmatch(name) is not None
    return name.endswith(_OF_A_MODEL) and not of_adapter and not is_of_training(name)


def _of_a_model(names: set[str]) -> bool:
    """Whether a file of one of `names` may hold a model's tensors."""
    return any(map(may_hold_a_model, names))


def refuse_unread_adapter(folder: Path) -> None:
    """Raise `InputError` if `folder` holds an adapter of MLX's, or half of one of PEFT's, and no
    model."""
    names = _names_in(folder)
    weights = [name for name in _WEIGHTS if name in names]
    of_mlx = _MLX_WEIGHTS in names and not weights
    if "config.json" in names or _of_a_model(names):
        return
    if of_mlx:
        raise InputError(
            f"{folder}: is an MLX adapter ({_MLX_WEIGHTS}), expected a PEFT adapter; fuse it with "
            "its model (mlx_lm.fuse), and quantize the fused model"
        )
    if (ADAPTER_CONFIG in names) != bool(weights):
        missing = ADAPTER_CONFIG if weights else _WEIGHTS[0]
        raise InputError(f"{folder}: {missing} of the adapter is missing; download it as well")


def unmerged_adapter(folder: Path) -> tuple[str, ...]:
    """Notes on an adapter in the folder of a whole model."""
    if (folder / _MLX_WEIGHTS).is_file():
        return (
            f"The MLX adapter beside the model ({_MLX_WEIGHTS}) is not merged into it. To merge "
            "it, fuse the two (mlx_lm.fuse), and quantize the fused model.",
        )
    names = [name for name in (ADAPTER_CONFIG, *_WEIGHTS) if (folder / name).is_file()]
    if len(names) < 2 or adapter_files(folder):
        return ()
    moved = " and ".join(names)
    return (
        f"The adapter beside the model ({names[1]}) is not merged into it. To merge it, move "
        f"{moved} to another folder and quantize that folder with --base {folder}.",
    )


def no_adapter(path: Path, base: Path | str) -> InputError:
    """The error for a `path` that holds no adapter, where `--base` asks for one: a file of it, or a
    folder of training's checkpoints, may be meant for one that does."""
    nearby = [path.parent, *(config.parent for config in path.glob(f"*/{ADAPTER_CONFIG}"))]
    found = sorted(
        (folder for folder in nearby if adapter_files(folder)),
        key=lambda folder: (len(folder.name), folder.name),
    )
    beside = [name for name in _names_in(path) if may_hold_a_model(name)]
    remedy = "leave out the option"
    if found:
        remedy = f"give {found[-1]}, which holds one"
        if any(not folder.name.startswith("checkpoint-") for folder in found[:-1]):
            others = ", ".join(folder.name for folder in found[:-1])
            remedy += f", or another that does ({others})"
    elif adapter_files(Path(base)):
        remedy = f"exchange the two paths: {base} is the adapter (give it with `--base {path}`)"
    if beside and ADAPTER_CONFIG in _names_in(path):
        remedy = f"move {min(beside)}, which may belong to a whole model, out of the folder"
    return InputError(
        f"--base {base}: {path} holds no adapter ({ADAPTER_CONFIG} and only {_WEIGHTS[0]}) that "
        f"could be merged into it; {remedy}"
    )


def base_is_missing(adapter: Path) -> InputError:
    """The error for a folder of an adapter where a model is expected."""
    base = read_object(adapter / ADAPTER_CONFIG).get("base_model_name_or_path")
    of = f" of {base!r}" if isinstance(base, str) and base else ""
    return InputError(
        f"{adapter}: is an adapter{of}, without the model itself; give that model's folder, in "
        f"floating point: `quatrain quantize {shell_word(adapter)} --base FOLDER -o DIR` "
        "merges the two"
    )
