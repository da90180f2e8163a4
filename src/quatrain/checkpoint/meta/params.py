"""Meta's params.json, with the defaults of missing fields.

`quatrain.backbone.config` reads the fields that are there; what Meta's `llama_models` and
ExecuTorch's `examples/models/llama` take for one that is not is stated here, so that a checkpoint
made from such a file states it too.
"""

from pathlib import Path
from typing import Any

from quatrain.checkpoint.families import meta_reading
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.layout import EMBEDDING
from quatrain.errors import InputError
from quatrain.json_files import read_object


def read_meta_params(path: Path) -> dict[str, Any]:
    """The object in `path`. Raises `InputError` if it is none, or `quantization_args` are not what
    they are read as."""
    params = read_object(path)
    arguments = params.get("quantization_args")
    if not isinstance(arguments, dict | None):
        raise InputError(
            f"{path}: quantization_args is {arguments!r}, expected an object or null; "
            "remove it if the model is not quantized"
        )
    spinquant = (arguments or {}).get("spinquant")
    if not isinstance(spinquant, bool | None):
        raise InputError(
            f"{path}: quantization_args has spinquant {spinquant!r}, expected true, false or null"
        )
    return params | _types_of_layers(params)


def _types_of_layers(params: dict[str, Any]) -> dict[str, Any]:
    """The `layer_types` without the one that ExecuTorch's own params of LFM2 have too many, which
    its model never looks at."""
    types, layers = params.get("layer_types"), params.get("n_layers")
    if isinstance(types, list) and type(layers) is int and 0 < layers == len(types) - 1:
        return {"layer_types": types[:-1]}
    return {}


def with_vocabulary(params: dict[str, Any], tensors: LazyTensors) -> dict[str, Any]:
    """`params` that states the embedding's rows where it leaves `vocab_size` to the tokenizer, as
    Llama 2's does."""
    embedding = tensors.stored.get(f"{EMBEDDING}.weight")
    if params.get("vocab_size") not in (None, -1) or not embedding or len(embedding.shape) != 2:
        return params
    return params | {"vocab_size": embedding.shape[0]}


def with_meta_defaults(params: dict[str, Any]) -> dict[str, Any]:
    """`params` that also states what it means by leaving a field out."""
    defaults = meta_reading(params).defaults(params)
    if params.get("use_qk_norm") is True:
        defaults["qk_norm_before_rope"] = False
    absent = {name: value for name, value in defaults.items() if params.get(name) is None}
    return params | absent
