"""Detects GGUF files that hold no model, or more than one."""

from quatrain.checkpoint.gguf.file import GgufFile
from quatrain.errors import InputError

# By a file's type, or by its architecture where it states no other type than a model's.
_NO_MODELS = {
    "adapter": "an adapter for a model",
    "imatrix": "llama.cpp's measurements of a model, for quantizing it",
    **dict.fromkeys(("clip", "clip-vision", "mmproj"), "the image or audio encoder of a model"),
    "controlvector": "a control vector of llama.cpp",
}
# What the names of tensors begin with that encode images, or join them to the text, or sound.
_ENCODERS = ("v.", "mm.", "a.")


def require_model(file: GgufFile) -> None:
    """Raise `InputError` for what belongs to a model and is none, an adapter, an image encoder or
    statistics, and for a model in one file with what encodes its images."""
    sees = next((name for name in file.tensors if name.startswith(_ENCODERS)), None)
    kind = str(file.metadata.get("general.type", "model"))
    architecture = str(file.metadata.get("general.architecture"))
    if kind == "model" and architecture not in _NO_MODELS:  # as older files say it
        if sees is None:
            return
        raise InputError(
            f"{file.path}: also holds an image or audio encoder ({sees}), as files of Ollama do, "
            "which llama.cpp does not read either; use a GGUF file written by llama.cpp's "
            "converter, or the Hugging Face folder"
        )
    what = _NO_MODELS.get(architecture if kind == "model" else kind, "not a model")
    remedy = "give the model's own file"
    if kind == "adapter":
        remedy = (
            "merge it into the model's own file with llama.cpp's `llama-export-lora -m MODEL.gguf "
            "--lora ADAPTER.gguf -o MERGED.gguf`, and give the file that it writes"
        )
    raise InputError(
        f"{file.path}: is {what} (general.type {kind!r}, general.architecture {architecture!r}), "
        f"expected a model; {remedy}"
    )
