"""What a model or checkpoint on disk consists of, and whether it is quantized, from headers."""

from pathlib import Path

from quatrain.checkpoint.files.formats import format_of, only_file, read_tensors
from quatrain.checkpoint.hugging_face.folder import INDEXES, read_folder, tensor_files
from quatrain.checkpoint.quantizers.torchao import PARTS
from quatrain.json_files import read_object
from quatrain.tokenizer.files import tokenizer_files_in

_META_SUFFIXES = (".safetensors", ".pth", ".pt")


def is_quantized(path: Path) -> bool:
    """Whether `path` is for `open_checkpoint` (else for `open_float_model`).

    Raises `InputError` where there is nothing to be read.
    """
    if not path.is_dir():
        names = [] if format_of(path) == "gguf" else list(read_tensors(path))
    elif (path / "config.json").is_file():
        if read_object(path / "config.json").get("quantization_config") is not None:
            return True
        names = list(read_folder(path)[0])
    else:
        names = [name for file in _meta_files(path) for name in read_tensors(file)]
    return any(name.endswith((".scales", *PARTS)) for name in names)


def source_files(path: Path, params: Path | None) -> list[Path]:
    """The files that decide what is made of `path`: its tensors', those that say how to read them,
    and its tokenizer's."""
    if not path.is_dir():
        if format_of(path) == "gguf":
            return [path]
        said = [params or path.with_name("params.json"), *tokenizer_files_in(path.parent)]
        return [path, *said]
    if params is None and (path / "config.json").is_file():
        tensors = tensor_files(path)
        # The first index is read, and none beside a whole file.
        indexes = _those_of(path, INDEXES)[:1] if len(tensors) > 1 else []
        names = ("config.json", "generation_config.json", "quantize_config.json")
        said = _those_of(path, names)
        return [*tensors, *indexes, *said, *tokenizer_files_in(path)]
    return [*_meta_files(path), params or path / "params.json", *tokenizer_files_in(path)]


def _those_of(folder: Path, names: tuple[str, ...]) -> list[Path]:
    return [folder / name for name in names if (folder / name).is_file()]


def _meta_files(folder: Path) -> list[Path]:
    """Meta's shards, or the one file there is."""
    shards = sorted(folder.glob("consolidated.[0-9][0-9].pth"))
    return shards or [only_file(folder, _META_SUFFIXES, "model.safetensors")]
