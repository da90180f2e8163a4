"""A folder that holds an adapter (PEFT's) and not the model that it is for. Imports no torch."""

from pathlib import Path

from quatrain.errors import InputError
from quatrain.json_files import read_object

ADAPTER_CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_OF_A_MODEL = (".safetensors", ".pth", ".pt", ".bin", ".gguf")


def adapter_files(folder: Path) -> list[Path]:
    """The files of the adapter in `folder`, its settings and its tensors; [] where it holds none,
    or a whole model too."""
    names = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    weights = [name for name in _WEIGHTS if name in names]
    if ADAPTER_CONFIG not in names or not weights:
        return []
    others = names - {*_WEIGHTS, "training_args.bin"}
    whole = any(name.endswith(_OF_A_MODEL) for name in others)
    return [] if whole else [folder / ADAPTER_CONFIG, folder / weights[0]]


def unmerged_adapter(folder: Path) -> tuple[str, ...]:
    """What there is to say of an adapter that lies in the folder of a whole model."""
    names = [name for name in (ADAPTER_CONFIG, *_WEIGHTS) if (folder / name).is_file()]
    if len(names) < 2 or adapter_files(folder):
        return ()
    moved = " and ".join(names)
    return (
        f"The adapter beside the model ({names[1]}) is not merged into it. Where it should be, "
        f"move {moved} to a folder of their own and quantize that one with --base {folder}.",
    )


def base_is_missing(adapter: Path) -> InputError:
    """The error for a folder of an adapter where a model is expected."""
    base = read_object(adapter / ADAPTER_CONFIG).get("base_model_name_or_path")
    of = f" of {base!r}" if isinstance(base, str) and base else ""
    return InputError(
        f"{adapter}: is an adapter{of}, without the model itself; give that model's folder, in "
        f"floating point: `quatrain quantize {adapter} --base FOLDER -o DIR` merges the two"
    )
