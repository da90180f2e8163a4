"""Opens a floating-point Hugging Face folder (config.json, *.safetensors or *.bin)."""

from pathlib import Path

from quatrain.backbone.params.params import config_from_params
from quatrain.checkpoint.files.adapter_folder import unmerged_adapter
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.float_model import FloatModel, checked, params_of
from quatrain.checkpoint.hugging_face.config import (
    Config,
    end_tokens,
    output_is_tied,
    params_of_config,
    read_config,
)
from quatrain.checkpoint.hugging_face.folder import read_folder
from quatrain.checkpoint.hugging_face.generation_settings import generation_notes
from quatrain.checkpoint.hugging_face.lora_adapter import with_adapter
from quatrain.checkpoint.hugging_face.quantized import require_convertible
from quatrain.checkpoint.hugging_face.quantizer_settings import (
    quantization_settings,
    require_known_quantizer,
)
from quatrain.checkpoint.hugging_face.tensors.biases import stated_biases
from quatrain.checkpoint.hugging_face.tensors.float8 import has_float8, in_floating_point
from quatrain.checkpoint.hugging_face.tensors.floating_settings import is_float8
from quatrain.checkpoint.hugging_face.tensors.mlx_layout import as_transformers_has_them
from quatrain.checkpoint.hugging_face.tensors.tensor_names import in_file, meta_name
from quatrain.checkpoint.hugging_face.tensors.tied_output import with_embedding, without_tied_output
from quatrain.checkpoint.layout import IGNORED
from quatrain.checkpoint.quantizers.bitnet import is_ternary_at_run_time
from quatrain.checkpoint.quantizers.read import all_floating, checked_quantizer, not_quantized
from quatrain.checkpoint.quantizers.unpacked import is_unpacked
from quatrain.errors import AlreadyQuantized, shell_word
from quatrain.tokenizer.copies import copy_tokenizer_files
from quatrain.tokenizer.files import TOKENIZER, files_of, tokenizer_in


def open_hugging_face_model(folder: Path, adapter: Path | None = None) -> FloatModel:
    """Open the folder of a Hugging Face model as a `FloatModel`, the LoRA adapter in the folder
    `adapter` merged into it.

    The rows of Q and K stay in Hugging Face's half-split order, which `use_hf_rope` states.
    """
    config_json = read_config(folder)
    fields, reading = config_json.fields, config_json.reading
    require_known_quantizer(fields, folder)
    stored, notes = _read(folder, config_json, adapter)
    names = {name: meta_name(name, reading.names) for name in stored if not IGNORED.fullmatch(name)}
    called = {new: old for old, new in names.items()}
    named = in_file(called, reading.names)
    tensors = stated_biases(stored.renamed(names), called, fields, reading)
    params = params_of_config(fields, set(tensors))
    config = config_from_params(params, fields.source)
    trained_context = fields.integer("max_position_embeddings")
    tokens = adapter if adapter is not None and tokenizer_in(adapter) else folder
    bos_id, eos_ids = end_tokens(folder, fields)
    return checked(
        FloatModel(
            source=folder,
            tensors=tensors,
            config=config,
            params=params_of(config, trained_context, bos_id, eos_ids),
            write_tokenizer=lambda output: copy_tokenizer_files(tokens, output, bos_id, eos_ids),
            notes=notes,
        ),
        named,
    )


def _read(
    folder: Path, config_json: Config, adapter: Path | None
) -> tuple[LazyTensors, tuple[str, ...]]:
    """(the tensors with the adapter merged into them, notes)"""
    fields, reading = config_json.fields, config_json.reading
    whole, metadata, of_files = read_folder(folder)
    stored, notes = config_json.text_model(whole)
    stored, called = as_transformers_has_them(stored, whole, str(folder))
    settings = quantization_settings(fields, stored, folder)
    if is_float8(settings) or (settings is None and has_float8(stored)):
        stored, of_float8 = in_floating_point(stored, settings, str(folder), called)
        notes += of_float8
    elif settings is not None or is_unpacked(stored):
        if adapter is None:  # else no command is named that might refuse it too
            quantizer, _ = checked_quantizer(stored, metadata, settings, str(folder))
            if all_floating(stored) and not is_ternary_at_run_time(settings):
                raise not_quantized(quantizer.name, str(folder))
        raise _quantized_already(folder, adapter)
    tied = output_is_tied(fields, reading, set(stored), folder)
    if tied:
        stored = with_embedding(stored)
    if adapter is not None:
        stored, of_adapter = with_adapter(stored, adapter, config_json.multimodal, tied, reading)
        notes += (*of_adapter, *_without_tokenizer(adapter))
    stored = reading.tensors(stored, fields)
    notes += (*of_files, *unmerged_adapter(folder), *generation_notes(folder))
    if tied:
        stored, of_output = without_tied_output(stored)
        notes += of_output
    return stored, notes


def _without_tokenizer(adapter: Path) -> tuple[str, ...]:
    """A note if a folder has files of a tokenizer but no tokenizer."""
    beside = [file.name for file in files_of(adapter / TOKENIZER)[1:]]
    if not beside or tokenizer_in(adapter):
        return ()
    return (
        f"The base's tokenizer is used: {adapter} has {' and '.join(beside)} but no {TOKENIZER}. "
        f"If the adapter was trained with those files, put the base's {TOKENIZER} there.",
    )


def _quantized_already(folder: Path, adapter: Path | None) -> AlreadyQuantized:
    if adapter is None:
        require_convertible(folder)
    remedy = (
        f"export it, or run `quatrain convert {shell_word(folder)} DIR` (with "
        "--requantize-asymmetric if its groups have zero points)"
    )
    if adapter is not None:
        remedy = f"to merge {adapter} give the original model, in floating point"
    return AlreadyQuantized(
        f"{folder}: is already quantized (by its quantization_config, its quantize_config.json, "
        f"or scales beside its weights); {remedy}"
    )
