"""The files of a model or checkpoint on disk."""

from pathlib import Path

from quatrain.checkpoint.files.adapter_folder import adapter_files
from quatrain.checkpoint.files.formats import Form
from quatrain.checkpoint.gguf.parts import part_files
from quatrain.checkpoint.hugging_face import folder as hugging_face
from quatrain.checkpoint.meta import shards as meta
from quatrain.checkpoint.open import detect
from quatrain.stand_ins import refuse_stand_in
from quatrain.tokenizer.files import tokenizer_files_in


def source_files(path: Path, params: Path | None, base: Path | None = None) -> list[Path]:
    """The files that determine the result for `path`: those of its tensors, those that say how to
    read them, and its tokenizer's; for an adapter, also those of its model `base`.

    Raises `InputError` if one is a Git LFS pointer or a web page.
    """
    if base is None:
        files = _files(path, params)
    else:
        files = [*adapter_files(path), *tokenizer_files_in(path), *_files(base, None)]
    for file in files:
        refuse_stand_in(file)
    return files


def _files(path: Path, params: Path | None) -> list[Path]:
    form = detect(path)
    if form is Form.GGUF:
        return part_files(path)
    if not path.is_dir():
        said = [params or path.with_name("params.json"), *tokenizer_files_in(path.parent)]
        return [path, *said]
    if params is None and form is Form.HUGGING_FACE:
        return [*hugging_face.source_files(path), *tokenizer_files_in(path)]
    return [*meta.tensor_files(path), params or path / "params.json", *tokenizer_files_in(path)]
