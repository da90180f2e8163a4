"""Opens a quantized Hugging Face folder: GPTQ, AWQ, compressed-tensors or torchao."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quatrain.backbone.config import config_from_params
from quatrain.checkpoint.checkpoint import Checkpoint, checked_checkpoint
from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.float_model import params_of
from quatrain.checkpoint.hugging_face.config import (
    end_tokens,
    output_is_tied,
    params_of_config,
    quantization_settings,
    read_config,
)
from quatrain.checkpoint.hugging_face.fields import integer
from quatrain.checkpoint.hugging_face.folder import read_folder
from quatrain.checkpoint.hugging_face.multimodal import text_tensors
from quatrain.checkpoint.hugging_face.tensor_names import meta_name
from quatrain.checkpoint.layout import IGNORED
from quatrain.checkpoint.quantizers import awq, compressed_tensors, gptq, torchao
from quatrain.checkpoint.quantizers.grouped_linear import GroupedLinear, RoundAgain, in_layout
from quatrain.errors import InputError

ReadLinear = Callable[
    [Mapping[str, StoredTensor], Mapping[str, Any], str, str],
    GroupedLinear,
]


@dataclass(frozen=True)
class _Format:
    """The names a linear's tensors end in, those that must be there first, and their reader."""

    parts: tuple[str, ...]
    required: int
    read: ReadLinear


_FORMATS = {
    "gptq": _Format(gptq.PARTS, 3, gptq.gptq_linear),
    "awq": _Format(awq.PARTS, 3, awq.awq_linear),
    "compressed-tensors": _Format(
        compressed_tensors.PARTS, 2, compressed_tensors.compressed_linear
    ),
    "torchao": _Format(torchao.PARTS, 2, torchao.torchao_linear),
}


def open_hugging_face_checkpoint(folder: Path, round_again: RoundAgain | None) -> Checkpoint:
    """Open a folder whose config.json names a quantization, or whose tensors are torchao's.

    Values and scales are the file's own, repacked as they are read; of a model that also sees,
    the text model's. Raises `InputError` where the folder is in floating point, or quantized in a
    way that the layout cannot hold.
    """
    fields, family, source = read_config(folder)
    stored, metadata = read_folder(folder)
    stored = text_tensors(stored).stored
    tied = output_is_tied(fields, family, set(stored), folder)
    kept = LazyTensors(
        {
            name: tensor
            for name, tensor in stored.items()
            if not IGNORED.fullmatch(name) and not (tied and name == "lm_head.weight")
        }
    )
    settings = quantization_settings(fields, kept, folder)
    tensors = quantized_tensors(kept, metadata, settings, str(folder), round_again)
    if family.tensors is not None:
        tensors = family.tensors(tensors, fields, source)
    tensors = tensors.renamed({name: meta_name(name, family.names) for name in tensors})
    params = params_of_config(fields, source, set(tensors))
    config = config_from_params(params, source)
    trained_context = integer(fields, "max_position_embeddings", source)
    bos_id, eos_ids = end_tokens(folder, fields)
    params = params_of(config, trained_context, bos_id, eos_ids)
    return checked_checkpoint(tensors, params, folder, folder, folder / "config.json")


def quantized_tensors(
    stored: LazyTensors,
    metadata: Mapping[str, str],
    settings: Any,
    source: str,
    round_again: RoundAgain | None,
) -> LazyTensors:
    """`stored` with every quantized matrix F as F.weight, F.scales and F.zeros; names are kept.

    `settings`: config.json's quantization_config, or None, in which case torchao's tensors are
    known by their names.
    """
    if settings is None and any(name.endswith(torchao.PARTS) for name in stored):
        settings = {"quant_method": "torchao"}
    if not isinstance(settings, dict):
        raise InputError(
            f"{source}: is a floating-point model (no quantization_config in config.json); "
            f"run `quatrain quantize {source} -o DIR` first"
        )
    method = settings.get("quant_method")
    form = _FORMATS.get(str(method))
    if form is None:
        raise InputError(
            f"{source}: its quant_method is {method!r}, expected one of {', '.join(_FORMATS)}"
        )
    if method == "compressed-tensors":
        compressed_tensors.check_settings(settings, source)
    if method == "torchao":
        torchao.check_metadata(metadata, source)
    modules, others = _by_module(stored, form)
    linears = {}
    for name, parts in modules.items():
        missing = [part for part in form.parts[: form.required] if part not in parts]
        if missing:
            raise InputError(f"{source}: {name}.{missing[0]} is missing, its other parts are there")
        linears[name] = form.read(parts, settings, name, source)
    if not linears:
        raise InputError(f"{source}: says it is quantized by {method} and holds no such tensor")
    return LazyTensors(others | in_layout(linears, source, round_again).stored)


def _by_module(
    stored: LazyTensors, form: _Format
) -> tuple[dict[str, dict[str, StoredTensor]], dict[str, StoredTensor]]:
    """(the quantized matrices' tensors by module and part, all other tensors by name)."""
    modules: dict[str, dict[str, StoredTensor]] = {}
    others = {}
    for name, tensor in stored.stored.items():
        module, _, part = name.rpartition(".")
        if part in form.parts:
            modules.setdefault(module, {})[part] = tensor
        else:
            others[name] = tensor
    return modules, others
