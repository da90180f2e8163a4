"""Opens a Meta folder: one .pth (or .safetensors) file or several shards, and params.json."""

from dataclasses import replace
from pathlib import Path

from quatrain.backbone.params.params import config_from_params
from quatrain.backbone.params.written import written_params
from quatrain.checkpoint.families import meta_reading
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.files.unread_files import unread_weights
from quatrain.checkpoint.float_model import FloatModel, checked
from quatrain.checkpoint.layout import IGNORED
from quatrain.checkpoint.meta.params import read_meta_params, with_meta_defaults, with_vocabulary
from quatrain.checkpoint.meta.pruned_output import with_own_output
from quatrain.checkpoint.meta.shards import read_meta_files, tensor_files
from quatrain.errors import AlreadyQuantized
from quatrain.tokenizer.copies import copy_tokenizer_files
from quatrain.tokenizer.end_tokens import token_ids


def open_meta_model(folder: Path) -> FloatModel:
    """Open the folder of a Meta model as a `FloatModel`; its tensors have their names already."""
    params_path = folder / "params.json"
    params = read_meta_params(params_path)
    reading = meta_reading(params)

    def renamed(stored: LazyTensors) -> LazyTensors:
        return reading.tensors(stored, params, str(folder))

    tensors = read_meta_files(folder, params.get("dim"), renamed)
    if any(name.endswith(".scales") for name in tensors):
        raise AlreadyQuantized(
            f"{folder}: is already quantized (it has .scales tensors); export it, or quantize the "
            "original model"
        )
    params = reading.params(params, tensors, str(params_path))
    params = with_meta_defaults(with_vocabulary(params, tensors))
    config = config_from_params(params, str(params_path))
    kept = tensors.without([name for name in tensors if IGNORED.fullmatch(name)])
    model = checked(
        FloatModel(
            source=folder,
            tensors=kept,
            config=config,
            params={**params, **written_params(config)},
            write_tokenizer=lambda output: copy_tokenizer_files(
                folder, output, params.get("bos_idx"), token_ids(params.get("eos_idx"))
            ),
            notes=unread_weights(folder, tensor_files(folder)),
        )
    )
    return replace(model, tensors=with_own_output(model.tensors, config, str(folder)))
