"""Opens a floating-point model of whichever format it is in."""

from pathlib import Path

from quatrain.checkpoint.files.formats import format_of
from quatrain.checkpoint.files.hub import local_path
from quatrain.checkpoint.float_model import FloatModel
from quatrain.checkpoint.gguf.model import open_gguf_model
from quatrain.checkpoint.hugging_face.float_model import open_hugging_face_model
from quatrain.checkpoint.meta.float_model import open_meta_model
from quatrain.errors import InputError


def open_float_model(path: Path | str) -> FloatModel:
    """Open a GGUF file, a Hugging Face folder, a Meta folder (.pth + params.json), or
    `hf://owner/name`.

    Reads headers and parameters only. Raises `InputError` where the model is damaged, of an
    architecture that the backbone does not implement, or does not fit its own parameters.
    """
    path = local_path(path)
    if not path.is_dir():
        if format_of(path) == "gguf":
            return open_gguf_model(path)
        raise InputError(
            f"{path}: a single file must be GGUF; for .safetensors or .pth give the folder, "
            "which also says the model's shape (config.json or params.json)"
        )
    if (path / "config.json").is_file():
        return open_hugging_face_model(path)
    if (path / "params.json").is_file():
        return open_meta_model(path)
    raise InputError(
        f"{path}: holds neither config.json (Hugging Face) nor params.json (Meta); "
        "give a model's folder or a GGUF file"
    )
