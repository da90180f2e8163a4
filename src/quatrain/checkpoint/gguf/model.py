"""Opens a GGUF model: its metadata and tensors in Meta's naming."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from quatrain.backbone.params.params import config_from_params
from quatrain.checkpoint.families import gguf_reading
from quatrain.checkpoint.families.family import GgufReading
from quatrain.checkpoint.float_model import (
    FloatModel,
    Int4Blocks,
    bias_params,
    checked,
    params_of,
    usual_context,
)
from quatrain.checkpoint.gguf.blocks import (
    GgufTensor,
    int4_blocks,
    int4_group_size,
    with_scales,
)
from quatrain.checkpoint.gguf.file import GgufFile, read_gguf
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.gguf.not_a_model import require_model
from quatrain.checkpoint.gguf.rope_scaling import rope_factors
from quatrain.checkpoint.gguf.sampling import sampling_notes
from quatrain.checkpoint.gguf.tensor_names import in_file, meta_name
from quatrain.errors import InputError
from quatrain.tokenizer.end_tokens import end_ids_of_gguf
from quatrain.tokenizer.from_gguf import tokenizer_files_from_gguf

_FLOATING = {"F64", "F32", "F16", "BF16"}
# Metadata that changes what the model computes and that is not implemented for every
# architecture, with the values that change nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "expert_count": (0,),
    "attention.scale": (0.0,),
    "attention.clamp_kqv": (0.0,),
    "attention.causal": (True,),
    "attention.max_alibi_bias": (0.0,),
    "use_parallel_residual": (False,),
    "logit_scale": (0.0, 1.0),
    "residual_scale": (0.0, 1.0),
    "embedding_scale": (0.0, 1.0),
}

# Metadata that says nothing of the model of text that its other metadata and tensors do not: the
# embedding's rows, and positions of what is seen, which of text are one.
_SAYS_NO_MORE = {"vocab_size", "rope.dimension_sections"}


# llama.cpp's LLAMA_TOKEN_NULL, as a signed and as an unsigned number.
_NO_TOKEN = (-1, 0xFFFFFFFF)


def _without_absent_tokens(file: GgufFile) -> GgufFile:
    """`file` without keys that say of a special token that there is none."""
    kept = {
        key: value
        for key, value in file.metadata.items()
        if not (key.endswith("_token_id") and isinstance(value, int) and value in _NO_TOKEN)
    }
    return replace(file, metadata=kept)


def open_gguf_model(path: Path) -> FloatModel:
    """Open the GGUF file `path` as a `FloatModel`."""
    file = _without_absent_tokens(read_gguf(path))
    require_model(file)
    metadata = GgufMetadata(file)
    reading = gguf_reading(metadata.architecture, str(path))
    own = reading.params(metadata)
    _check_metadata(metadata)
    unused = metadata.predicts_further() | reading.unused(file.tensors, metadata)
    file, said_of_unused = _used(file, unused)
    file = replace(file, tensors=with_scales(file.tensors))
    file = _with_fused_apart(_with_filters(file, reading.filters), reading.fused(metadata))
    file = replace(file, tensors=reading.tensors(file.tensors, metadata))
    tensors = reading.floats(file.float_tensors(), metadata)
    unnamed = tensors.keys() - rope_factors(tensors)
    names = {name: meta_name(name, reading.names) for name in unnamed}
    params = _params(file, metadata, reading, own, set(names.values()))
    config = config_from_params(params, str(path))
    bos_id = file.metadata.get("tokenizer.ggml.bos_token_id")
    return checked(
        FloatModel(
            source=path,
            tensors=tensors.renamed(names),
            config=config,
            params=params_of(
                config, metadata.trained_context(), bos_id, end_ids_of_gguf(file.metadata)
            ),
            write_tokenizer=lambda folder: tokenizer_files_from_gguf(file.metadata, path, folder),
            int4_blocks={
                names[name]: Int4Blocks(size, lambda tensor=tensor: int4_blocks(tensor))
                for name, tensor in file.tensors.items()
                if (size := int4_group_size(tensor)) and name in names
            },
            notes=(
                *_quantized_already(file),
                *metadata.unstated_context(),
                *said_of_unused,
                *_unused_metadata(metadata),
                *sampling_notes(file.metadata),
            ),
        ),
        in_file({new: old for old, new in names.items()}, reading.names),
    )


def _quantized_already(file: GgufFile) -> tuple[str, ...]:
    """A note if the matrices of `file` are not in floating point."""
    types = {tensor.type_name for tensor in file.tensors.values() if len(tensor.shape) > 1}
    rounded = sorted(types - _FLOATING)
    if not rounded:
        return ()
    return (
        f"The source is already quantized: its matrices are {', '.join(rounded)}. Errors are "
        "measured against the stored values, not against the original model.",
    )


def _check_metadata(metadata: GgufMetadata) -> None:
    """Raise `InputError` for a figure that the family's reading did not look up."""
    for key, neutral in _NEUTRAL.items():
        if metadata.is_asked(key):
            continue
        value = metadata.get(key)
        if isinstance(value, np.ndarray) or value not in (None, *neutral):
            raise metadata.refuse(key, "which this backbone does not implement")
    base, local = "rope.freq_base", "rope.freq_base_swa"
    of_all = metadata.number(base, 10000.0)
    unread = metadata.window() and not metadata.is_asked(local)
    if unread and metadata.number(local, of_all) != of_all:
        raise metadata.refuse(local, f"expected {base}, {of_all}; other values are not implemented")
    head_dim = metadata.head_dim()
    for key in ("attention.value_length", "rope.dimension_count"):
        if not metadata.is_asked(key) and metadata.number(key, head_dim) != head_dim:
            raise metadata.refuse(
                key, f"expected the head dimension {head_dim}; other values are not implemented"
            )


def _used(file: GgufFile, unused: set[str]) -> tuple[GgufFile, tuple[str, ...]]:
    """(`file` without the tensors `unused`, a note on them)"""
    if not unused:
        return file, ()
    used = {name: tensor for name, tensor in file.tensors.items() if name not in unused}
    note = f"Not used, as in llama.cpp: {', '.join(sorted(unused))}."
    return replace(file, tensors=used), (note,)


def _unused_metadata(metadata: GgufMetadata) -> tuple[str, ...]:
    """A note on metadata that was not read."""
    keys = [key for key in metadata.unasked() if key not in _SAYS_NO_MORE]
    named = ", ".join(f"{metadata.architecture}.{key} ({metadata.get(key)!r:.60})" for key in keys)
    return (f"Metadata that is not used: {named}.",) if keys else ()


def _with_filters(file: GgufFile, filters: frozenset[str]) -> GgufFile:
    """`file` with its `filters` in the shape that they have elsewhere."""
    tensors = {
        name: replace(tensor, shape=(tensor.shape[0], 1, *tensor.shape[1:]))
        if name.removesuffix(".weight").endswith(tuple(filters)) and len(tensor.shape) == 2
        else tensor
        for name, tensor in file.tensors.items()
    }
    return replace(file, tensors=tensors)


def _with_fused_apart(file: GgufFile, fused: dict[str, dict[str, int]]) -> GgufFile:
    """`file` with each tensor that is several in one as those: views of its rows."""
    tensors: dict[str, GgufTensor] = {}
    for name, tensor in file.tensors.items():
        stem, _, kind = name.rpartition(".")
        block, _, module = stem.rpartition(".")
        parts = fused.get(module)
        if parts is None:
            tensors[name] = tensor
            continue
        if tensor.shape[0] != sum(parts.values()):
            raise InputError(
                f"{file.path}: {name} has {tensor.shape[0]} rows, expected {sum(parts.values())}"
            )
        first = 0
        for part, rows in parts.items():
            named = f"{block}.{part}.{kind}"
            if named != name and named in file.tensors:  # Phi: ffn_up is gate and up
                raise InputError(f"{file.path}: holds {named} twice, by itself and in {name}")
            tensors[named] = tensor.part(named, first, (rows, *tensor.shape[1:]))
            first += rows
    return replace(file, tensors=tensors)


def _norm_eps(own: dict[str, Any]) -> str:
    """A file may state both; llama.cpp reads the one for its architecture's type of norm."""
    of_layer_norms = own.get("norm_type") == "layer"
    return f"attention.layer_norm_{'' if of_layer_norms else 'rms_'}epsilon"


def _params(
    file: GgufFile,
    metadata: GgufMetadata,
    reading: GgufReading,
    own: dict[str, Any],
    names: set[str],
) -> dict[str, Any]:
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise InputError(f"{file.path}: tensor token_embd.weight is missing")
    if metadata.window() and "sliding_window" not in own and "attention_chunk_size" not in own:
        raise metadata.refuse(
            "attention.sliding_window", "which is not implemented for this family"
        )
    heads = metadata.number("attention.head_count")
    kv_heads = own.get("n_kv_heads") or metadata.number("attention.head_count_kv", heads)
    params = {
        "dim": metadata.number("embedding_length"),
        "n_layers": metadata.stated_layers(),
        "n_heads": heads,
        "n_kv_heads": kv_heads,
        "head_dim": metadata.head_dim(),
        "hidden_dim": own.get("hidden_dim") or metadata.number("feed_forward_length"),
        "vocab_size": embedding.shape[0],
        "norm_eps": metadata.decimal(_norm_eps(own)),
        "rope_theta": metadata.decimal("rope.freq_base", 10000.0),
        "use_hf_rope": reading.half_split,
        **bias_params(names),
        **({"attention_qkv_bias": True} if reading.biased else {}),
        "use_qk_norm": "layers.0.attention.q_norm_fn.weight" in names,
        "max_seq_len": usual_context(metadata.trained_context()),
    }
    return params | reading.rope(metadata) | own
