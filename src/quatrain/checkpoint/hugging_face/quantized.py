"""Opens a quantized Hugging Face folder of any format in `quantizers`."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from quatrain.backbone.params.params import config_from_params
from quatrain.checkpoint.checkpoint import Checkpoint, checked_checkpoint
from quatrain.checkpoint.files.lazy_tensors import LazyTensors, RowsOf
from quatrain.checkpoint.float_model import params_of
from quatrain.checkpoint.hugging_face.config import (
    end_tokens,
    output_is_tied,
    params_of_config,
    read_config,
)
from quatrain.checkpoint.hugging_face.folder import read_folder
from quatrain.checkpoint.hugging_face.generation_settings import generation_notes
from quatrain.checkpoint.hugging_face.quantizer_settings import (
    quantization_settings,
    require_known_quantizer,
    stated_settings,
)
from quatrain.checkpoint.hugging_face.tensors.biases import stated_biases
from quatrain.checkpoint.hugging_face.tensors.float8 import has_float8, in_floating_point
from quatrain.checkpoint.hugging_face.tensors.floating_settings import has_float8_groups, is_float8
from quatrain.checkpoint.hugging_face.tensors.mlx_layout import as_transformers_has_them
from quatrain.checkpoint.hugging_face.tensors.tensor_names import (
    in_file,
    is_computed_in_floating_point,
    meta_name,
)
from quatrain.checkpoint.hugging_face.tensors.tied_output import without_tied_output
from quatrain.checkpoint.layout import IGNORED
from quatrain.checkpoint.quantizers.bitnet import notes_on_ternary
from quatrain.checkpoint.quantizers.compressed_groups import (
    note_on_activations,
    notes_on_activations,
)
from quatrain.checkpoint.quantizers.grouped_linear import RoundAgain
from quatrain.checkpoint.quantizers.left_in_floating_point import with_all_quantized
from quatrain.checkpoint.quantizers.modelopt import activations_of_modelopt
from quatrain.checkpoint.quantizers.mx_int import activations_of_mx_int
from quatrain.checkpoint.quantizers.read import quantized_tensors
from quatrain.errors import InputError, shell_word
from quatrain.int4 import GROUP_SIZES, Scheme

# Tensors that say how a runtime quantizes activations, and what a note says about each.
_UNREAD = {
    re.compile(
        r".*\.self_attn\.(?:(?:attn\.|[kv]_proj\.)?(?:[qkv]|kv)_(?:scale|zero_point)"
        r"|[kv]_proj\.[kv]_bias|[kv]_cache_scale)"
    ): "an 8-bit KV cache ({} and the like), which are not used: the cache is in floating point.",
    re.compile(r".*\.(?:input|output)_activation_scale"): (
        "the inputs and outputs of linears ({} and the like), which are not used: inputs are in "
        "floating point, or with 8da4w quantized dynamically for each token."
    ),
}


def open_hugging_face_checkpoint(folder: Path, round_again: RoundAgain | None) -> Checkpoint:
    """Open a folder whose config.json names a quantization, or whose tensors are torchao's.

    Values and scales are the file's own, repacked when they are read; of a model that also sees,
    the text model's. Raises `InputError` if the folder is in floating point, or quantized in a way
    that the layout cannot hold.
    """
    config_json = read_config(folder)
    fields, family = config_json.fields, config_json.reading
    require_known_quantizer(fields, folder)
    stated = stated_settings(fields)
    if is_float8(stated):
        raise _in_floating_point(folder)
    whole, metadata, of_files = read_folder(folder)
    if stated is None and has_float8(whole):
        raise _in_floating_point(folder)
    stored, notes = config_json.text_model(whole)
    stored, of_whole = as_transformers_has_them(stored, whole, str(folder))
    if output_is_tied(fields, family, set(stored), folder):
        stored, of_output = without_tied_output(stored)
        notes += of_output
    kept, of_unread = _without_unread(stored)
    notes += (*of_files, *of_unread, *generation_notes(folder))
    settings = quantization_settings(fields, kept, folder)
    if has_float8_groups(settings):  # beside int4; rounded as what was left in floating point
        kept, _ = in_floating_point(kept, settings, str(folder))
    tensors, int4 = quantized_tensors(
        kept, metadata, settings, str(folder), round_again, of_whole,
        stays_floating=lambda name: is_computed_in_floating_point(name, family.names),
    )  # fmt: skip
    notes += (*notes_on_activations(settings), *notes_on_ternary(settings))
    rounded = (*activations_of_modelopt(settings), *activations_of_mx_int(settings))
    notes += note_on_activations(rounded)
    tensors = family.tensors(tensors, fields)
    names = {name: meta_name(name, family.names) for name in tensors}
    tensors = tensors.renamed(names)
    called = {new: old for old, new in names.items()}
    tensors = stated_biases(tensors, called, fields, family)
    params = params_of_config(fields, set(tensors))
    config = config_from_params(params, fields.source)
    tensors = with_all_quantized(tensors, config, str(folder), round_again, called)
    trained_context = fields.integer("max_position_embeddings")
    bos_id, eos_ids = end_tokens(folder, fields)
    params = params_of(config, trained_context, bos_id, eos_ids)
    params["quantization_args"] = {"scheme": Scheme.DYNAMIC_INT8} | _table_kinds(int4)
    named = in_file(called, family.names)
    return replace(checked_checkpoint(tensors, params, config, folder, folder, named), notes=notes)


def _in_floating_point(folder: Path) -> InputError:
    return InputError(
        f"{folder}: is read as floating point (FP8, FP4, bitsandbytes, HQQ), not int4; "
        f"run `quatrain quantize {shell_word(folder)} -o DIR` first"
    )


class _AcceptsAll:
    """Accepts every linear that may be requantized, and is never called."""

    asymmetric = True
    group_sizes: tuple[int, ...] = GROUP_SIZES

    def __call__(
        self, name: str, rows_of: RowsOf, shape: tuple[int, ...], group_size: int | None, why: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        raise NotImplementedError


def require_convertible(folder: Path) -> None:
    """Raise `InputError` if `convert` would refuse the quantized `folder`, from headers."""
    open_hugging_face_checkpoint(folder, _AcceptsAll())


def _without_unread(stored: LazyTensors) -> tuple[LazyTensors, tuple[str, ...]]:
    """(`stored` without tensors that every model computes itself or does not use, notes on them)"""
    unread = {name for name in stored if IGNORED.fullmatch(name)}
    notes = []
    for pattern, of_what in _UNREAD.items():
        scales = [name for name in stored if pattern.fullmatch(name)]
        unread.update(scales)
        notes += [f"It has scales for {of_what.format(scales[0])}"] if scales else []
    return stored.without(unread), tuple(notes)


def _table_kinds(int4: Mapping[str, bool]) -> dict[str, str]:
    """The kinds of the quantized tables in params.json, by whether each is `int4`."""
    tables = (("embedding", "model.embed_tokens"), ("output", "lm_head"))
    return {kind: "int4" if int4[name] else "int8" for kind, name in tables if name in int4}
