"""What a model or checkpoint on disk consists of, and whether it is quantized, from headers."""

from pathlib import Path

from quatrain.backbone.config import load_params
from quatrain.checkpoint.formats import format_of, only_file, read_tensors
from quatrain.checkpoint.hugging_face_files import read_folder, tensor_files
from quatrain.checkpoint.torchao_tensors import PARTS

_META_SUFFIXES = (".safetensors", ".pth", ".pt")


def is_quantized(path: Path) -> bool:
    """Whether `path` is for `open_checkpoint` (else for `open_float_model`).

    Raises `InputError` where there is nothing to be read.
    """
    if not path.is_dir():
        return format_of(path) != "gguf"
    if (path / "config.json").is_file():
        if load_params(path / "config.json").get("quantization_config") is not None:
            return True
        names = list(read_folder(path)[0])
    else:
        names = [name for file in _meta_files(path) for name in read_tensors(file)]
    return any(name.endswith((".scales", *PARTS)) for name in names)


def source_files(path: Path, params: Path | None) -> list[Path]:
    """The files that decide what `path` is: its tensors', and those that say how to read them."""
    if not path.is_dir():
        beside = [params or path.with_name("params.json")] if format_of(path) != "gguf" else []
        return [path, *beside]
    if params is None and (path / "config.json").is_file():
        generation = path / "generation_config.json"
        said = [path / "config.json", *([generation] if generation.is_file() else [])]
        return [*tensor_files(path), *said]
    return [*_meta_files(path), params or path / "params.json"]


def _meta_files(folder: Path) -> list[Path]:
    """Meta's shards, or the one file there is."""
    shards = sorted(folder.glob("consolidated.[0-9][0-9].pth"))
    return shards or [only_file(folder, _META_SUFFIXES, "model.safetensors")]
