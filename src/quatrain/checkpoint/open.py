"""What is this file or folder? And: open it as what it is.

| it is | `open_checkpoint` | `open_float_model` |
|---|---|---|
| a folder with config.json (Hugging Face), or hf://owner/name | quantized | in floating point |
| another folder, with params.json (Meta, Quatrain) | quantized | in floating point |
| a .safetensors or .pth file beside params.json | quantized | |
| a GGUF file | | always |

A program, the third kind, is for `quatrain.program.open_program`. Nothing here takes torch to
import: it is imported when something is opened.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from quatrain.checkpoint.files.adapter_folder import (
    adapter_files,
    base_is_missing,
    no_adapter,
    refuse_unread_adapter,
)
from quatrain.checkpoint.files.archives import archive_in
from quatrain.checkpoint.files.formats import (
    PICKLED,
    Form,
    first_bytes,
    form_of_file,
    is_a_program,
    model_below,
)
from quatrain.checkpoint.files.hub import is_on_hub, local_path, readable
from quatrain.checkpoint.files.other_programs import other_program
from quatrain.checkpoint.files.stated_sizes import how_to_state_sizes
from quatrain.errors import InputError
from quatrain.folder_entries import entries

if TYPE_CHECKING:
    from quatrain.checkpoint.checkpoint import Checkpoint
    from quatrain.checkpoint.float_model import FloatModel
    from quatrain.checkpoint.quantizers.grouped_linear import RoundAgain

# Their names as changed by a browser, an editor or a file manager.
_RENAMED = re.compile(r"(?:config|params)\b.*\.json\b.*", re.IGNORECASE)


def detect(path: Path | str) -> Form:
    """The kind of `path`, from its content; nothing is downloaded.

    Raises `InputError` if there is nothing, or nothing that Quatrain reads.
    """
    if is_on_hub(path):
        return Form.HUB
    path = readable(Path(path))
    if path.is_dir():
        return Form.HUGGING_FACE if (path / "config.json").is_file() else Form.META
    return form_of_file(path)


def is_program(path: Path) -> bool:
    """Whether `path` is for `open_program`, not for `open_checkpoint`.

    This is also true of a file that is only called .pte: `open_program` then says what is wrong
    with it.
    """
    return (path.suffix == ".pte" and not path.is_dir()) or detect(path) is Form.PROGRAM


def is_quantized(path: Path) -> bool:
    """Whether `path` is for `open_checkpoint`, not for `open_float_model`, from file headers.

    Raises `InputError` if there is nothing to read.
    """
    form = detect(path)
    if form in (Form.GGUF, Form.PROGRAM) or adapter_files(path):
        return False
    if form is Form.HUGGING_FACE:
        from quatrain.checkpoint.hugging_face.fields import read_fields
        from quatrain.checkpoint.hugging_face.quantizer_settings import stated_settings
        from quatrain.checkpoint.hugging_face.tensors.floating_settings import is_float8

        fields = read_fields(path / "config.json")
        # Of a model that also sees, where either may say it.
        inside = fields.get("text_config") or fields.get("llm_config")
        settings = stated_settings(fields)
        if settings is None and isinstance(inside, dict):
            settings = stated_settings(fields | inside)
        if settings is not None:
            return not is_float8(settings)
    from quatrain.checkpoint.files.tensor_file import read_tensors
    from quatrain.checkpoint.quantizers import quantizer_by_names

    names = [name for file in _tensor_files(path, form) for name in read_tensors(file)]
    return any(name.endswith(".scales") for name in names) or bool(quantizer_by_names(names))


def open_checkpoint(
    path: Path | str, params: Path | str | None = None, round_again: "RoundAgain | None" = None
) -> "Checkpoint":
    """Open a quantized checkpoint; its tensors are in the pre-quantized layout.

    Reads headers only. Names, shapes and dtypes are checked against the parameters here, values by
    `Checkpoint.check_values`.

    Args:
        path: A folder with params.json and one .safetensors or .pth file in the layout, such as
            Meta's official releases; such a file; a Hugging Face folder quantized by GPTQ, AWQ,
            compressed-tensors or torchao; or `hf://owner/name`, such a folder on the hub.
        params: The params.json of a file, if it is not beside it.
        round_again: Collects the linears that the layout cannot hold (asymmetric or in act-order).
            Without it, such linears are an error.

    Raises:
        InputError: There is no checkpoint, or something in it does not fit; the message names it.
    """
    path = local_path(path)
    if adapter_files(path):
        raise base_is_missing(path)
    if params is None and detect(path) is Form.HUGGING_FACE:
        from quatrain.checkpoint.hugging_face.quantized import open_hugging_face_checkpoint

        return open_hugging_face_checkpoint(path, round_again)
    from quatrain.checkpoint.meta.quantized import open_meta_checkpoint

    return open_meta_checkpoint(path, params, round_again)


def open_float_model(path: Path | str, base: Path | str | None = None) -> "FloatModel":
    """Open a floating-point model.

    Reads headers and parameters only.

    Args:
        path: A GGUF file, a Hugging Face folder, a Meta folder (.pth and params.json), or
            `hf://owner/name`; with `base`, the folder of a LoRA adapter for it.
        base: The Hugging Face model into which the adapter in `path` is merged.

    Raises:
        InputError: There is no model, it is damaged, the backbone does not implement its
            architecture, or its tensors do not fit its parameters.
    """
    path = local_path(path)
    refuse_unread_adapter(path)
    if adapter_files(path) or base is not None:
        return _open_adapted(path, base)
    form = detect(path)
    if form is Form.GGUF:
        from quatrain.checkpoint.gguf.model import open_gguf_model

        return open_gguf_model(path)
    if form is Form.HUGGING_FACE:
        from quatrain.checkpoint.hugging_face.float_model import open_hugging_face_model

        return open_hugging_face_model(path)
    if form is Form.META and (path / "params.json").is_file():
        from quatrain.checkpoint.meta.float_model import open_meta_model

        return open_meta_model(path)
    raise _no_float_model(path, form)


def _no_float_model(path: Path, form: Form) -> InputError:
    if form is Form.META:
        models = sorted(entries(path, "*.gguf"), key=lambda file: "mmproj" in file.name)
        if not models and not entries(path, "*.safetensors"):
            for file in filter(Path.is_file, entries(path)):
                if said := other_program(file, first_bytes(file)):
                    return InputError(f"{file}: {said}")
        inside = next(map(str, models), "a GGUF file")
        below = model_below(path)
        such = f", such as {below}," if below else ""
        files = [file for file in entries(path) if file.suffix in (".safetensors", *PICKLED)]
        names = [file.name for file in entries(path) if file.is_file()]
        renamed = next(filter(_RENAMED.fullmatch, names), None)
        remedy = f"give a model's folder{such} or {inside}"
        if renamed:
            remedy = f"if {renamed} is one of them, rename it to that"
        elif files and (command := how_to_state_sizes(files[0])):
            remedy = f"its sizes are in {files[0].name}: write them to params.json with `{command}`"
        elif files:
            remedy = f"put the one of {files[0].name} beside it, which holds the model's sizes"
        elif packed := archive_in(path):
            remedy = f"unpack {packed.name} there"
        return InputError(
            f"{path}: holds neither config.json (Hugging Face) nor params.json (Meta); {remedy}"
        )
    if form is Form.PROGRAM:
        return is_a_program(path)
    return InputError(
        f"{path}: a single file must be GGUF; for .safetensors or .pth give the folder, which "
        "also has the model's config.json or params.json"
    )


def _open_adapted(adapter: Path, base: Path | str | None) -> "FloatModel":
    if base is None:
        raise base_is_missing(adapter)
    if not adapter_files(adapter):
        raise no_adapter(adapter, base)
    folder = local_path(base)
    if detect(folder) is not Form.HUGGING_FACE:
        below = model_below(folder)
        such = f", such as {below}" if below and (below / "config.json").is_file() else ""
        raise InputError(
            f"--base {base}: is not a Hugging Face folder, which an adapter needs; give the "
            f"folder of the model that the adapter was trained on{such}"
        )
    from quatrain.checkpoint.hugging_face.float_model import open_hugging_face_model

    return open_hugging_face_model(folder, adapter)


def _tensor_files(path: Path, form: Form) -> list[Path]:
    if form is Form.HUGGING_FACE:
        from quatrain.checkpoint.hugging_face.folder import tensor_files

        return tensor_files(path)
    if form is Form.META:
        from quatrain.checkpoint.meta.shards import tensor_files

        return tensor_files(path)
    return [path]
