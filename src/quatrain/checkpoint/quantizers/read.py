"""The tensors of a quantized model, its linears read by the quantizer that made them."""

from collections.abc import Mapping
from typing import Any

from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor, put_once
from quatrain.checkpoint.quantizers import QUANTIZERS, quantizer_by_names
from quatrain.checkpoint.quantizers.grouped_linear import RoundAgain, in_layout
from quatrain.checkpoint.quantizers.quantizer import Quantizer
from quatrain.errors import InputError


def quantized_tensors(
    stored: LazyTensors,
    metadata: Mapping[str, str],
    settings: Any,
    source: str,
    round_again: RoundAgain | None,
) -> LazyTensors:
    """`stored` with every quantized matrix F as F.weight, F.scales and F.zeros; names are kept.

    `settings`: config.json's quantization_config, or None, in which case the quantizer may be known
    by the tensors' names. `metadata`: of the files' headers. Raises `InputError`, naming `source`,
    where nothing is quantized, or in a way that is not read.
    """
    if settings is None and (known := quantizer_by_names(stored)):
        settings = {"quant_method": known.name}
    if not isinstance(settings, dict):
        raise InputError(
            f"{source}: is a floating-point model (no quantization_config in config.json); "
            f"run `quatrain quantize {source} -o DIR` first"
        )
    method = settings.get("quant_method")
    quantizer = QUANTIZERS.get(str(method))
    if quantizer is None:
        raise InputError(
            f"{source}: its quant_method is {method!r}, expected one of {', '.join(QUANTIZERS)}"
        )
    quantizer.check(settings, metadata, source)
    modules, others = _by_module(stored, quantizer)
    linears = {}
    for name, parts in modules.items():
        missing = [part for part in quantizer.required if part not in parts]
        if missing:
            raise InputError(f"{source}: {name}.{missing[0]} is missing, its other parts are there")
        linears[name] = quantizer.read(parts, settings, name, source)
    if not linears:
        raise InputError(f"{source}: says it is quantized by {method} and holds no such tensor")
    for name, tensor in in_layout(linears, source, round_again).stored.items():
        put_once(others, name, tensor, source)
    return LazyTensors(others)


def _by_module(
    stored: LazyTensors, quantizer: Quantizer
) -> tuple[dict[str, dict[str, StoredTensor]], dict[str, StoredTensor]]:
    """(the quantized matrices' tensors by module and part, all other tensors by name)."""
    modules: dict[str, dict[str, StoredTensor]] = {}
    others = {}
    for name, tensor in stored.stored.items():
        module, _, part = name.rpartition(".")
        if part in quantizer.parts:
            modules.setdefault(module, {})[part] = tensor
        else:
            others[name] = tensor
    return modules, others
