"""Opens a floating-point model, of whatever format, under one naming."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from quatrain.backbone.config import BackboneConfig, config_from_params, load_params
from quatrain.checkpoint.formats import format_of, only_file, read_tensors
from quatrain.checkpoint.layout import (
    EMBEDDING,
    IGNORED,
    OUTPUT,
    check_layer_count,
    check_names,
    check_shapes,
    float_shapes,
)
from quatrain.checkpoint.tensors import LazyTensors
from quatrain.errors import InputError

# The context that a params.json asks for unless its model was trained on less: a KV cache for
# all that a model can take is rarely wanted on a phone. `max_context_len` states the rest.
_USUAL_CONTEXT = 2048


@dataclass(frozen=True)
class FloatModel:
    """A model before quantization.

    `tensors`: float32 by Meta name (see `quatrain.checkpoint.layout`), read as they are indexed;
    without `output.weight` where the output layer is tied to the embedding. `params`: what its
    params.json should say. `int4_blocks`: for a tensor that its file holds as symmetric int4
    (GGUF's Q4_0), a function returning those integers, int8 [N, K] in [-8, 7], and scales,
    float32 [N, K/32], which may be negative. `write_tokenizer(folder)` writes tokenizer.json and
    tokenizer_config.json, or nothing where the model came with none, and returns what it wrote.
    """

    source: Path
    tensors: LazyTensors
    config: BackboneConfig
    params: dict[str, Any]
    write_tokenizer: Callable[[Path], list[Path]]
    int4_blocks: Mapping[str, Callable[[], tuple[torch.Tensor, torch.Tensor]]] = field(
        default_factory=dict
    )


def open_float_model(path: Path) -> FloatModel:
    """Open a GGUF file, a Hugging Face safetensors folder, or a Meta folder (.pth + params.json).

    Reads headers and parameters only. Raises `InputError` where the model is damaged, of an
    architecture that the backbone does not implement, or does not fit its own parameters.
    """
    # Here, so that each format's module may use what this one defines.
    from quatrain.checkpoint.from_gguf import open_gguf_model
    from quatrain.checkpoint.from_hugging_face import open_hugging_face_model

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
        return _open_meta_model(path)
    raise InputError(
        f"{path}: holds neither config.json (Hugging Face) nor params.json (Meta); "
        "give a model's folder or a GGUF file"
    )


def checked(model: FloatModel) -> FloatModel:
    """`model`, whose tensors are those of its config. Raises `InputError` where they are not."""
    source, stored = str(model.source), model.tensors.stored
    check_layer_count(model.config, stored, source)
    expected = float_shapes(model.config)
    optional = {f"{OUTPUT}.weight"}
    check_names(stored, set(expected) - optional, optional, source)
    check_shapes({name: tensor.shape for name, tensor in stored.items()}, expected, source)
    return model


def params_of(
    config: BackboneConfig, trained_context: int, bos_id: int | None, eos_ids: list[int]
) -> dict[str, Any]:
    """What a params.json says about `config`, with the tokens that begin and end a text."""
    params = config.to_params() | {"max_context_len": trained_context}
    if bos_id is not None:
        params["bos_idx"] = bos_id
    if eos_ids:
        params["eos_idx"] = eos_ids[0] if len(eos_ids) == 1 else eos_ids
    return params


def usual_context(trained_context: int) -> int:
    """The `max_seq_len` to write for a model trained on `trained_context` tokens."""
    return min(trained_context, _USUAL_CONTEXT)


def _open_meta_model(folder: Path) -> FloatModel:
    # Here: the tokenizer's module is not needed to open a checkpoint.
    from quatrain.tokenizer import copy_tokenizer_files

    params_path = folder / "params.json"
    params = load_params(params_path)
    tensors = read_tensors(only_file(folder, (".pth", ".pt", ".safetensors")))
    if f"{EMBEDDING}.scales" in tensors or any(name.endswith(".scales") for name in tensors):
        raise InputError(
            f"{folder}: is quantized already (it has .scales tensors); "
            "export it, or quantize the floating-point model it came from"
        )
    vocabulary = params.get("vocab_size")
    if (vocabulary is None or vocabulary == -1) and f"{EMBEDDING}.weight" in tensors:
        # Llama 2's params.json leaves it to the tokenizer.
        params["vocab_size"] = tensors.stored[f"{EMBEDDING}.weight"].shape[0]
    config = config_from_params(params, str(params_path))
    kept = {name: name for name in tensors if not IGNORED.fullmatch(name)}
    return checked(
        FloatModel(
            source=folder,
            tensors=tensors.renamed(kept).as_float32(str(folder)),
            config=config,
            params={**params, **config.to_params()},
            write_tokenizer=lambda output: copy_tokenizer_files(folder, output),
        )
    )
