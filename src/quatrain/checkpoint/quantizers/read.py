"""Reads the tensors of a quantized model, its linears by the quantizer that wrote them."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor, dtype_name, put_once
from quatrain.checkpoint.quantizers import QUANTIZERS, quantizer_by_names
from quatrain.checkpoint.quantizers.dequantized import dequantized
from quatrain.checkpoint.quantizers.grouped_linear import RoundAgain
from quatrain.checkpoint.quantizers.in_layout import in_layout
from quatrain.checkpoint.quantizers.left_in_floating_point import with_experts_quantized
from quatrain.checkpoint.quantizers.parts import Parts
from quatrain.checkpoint.quantizers.quantizer import HEADERS, Quantizer
from quatrain.checkpoint.quantizers.unpacked import UNPACKED, is_unpacked
from quatrain.errors import InputError, shell_word


def quantized_tensors(
    stored: LazyTensors,
    metadata: Mapping[str, str],
    settings: Any,
    source: str,
    round_again: RoundAgain | None,
    called: Mapping[str, str] = MappingProxyType({}),
    stays_floating: Callable[[str], bool] = lambda name: False,
) -> tuple[LazyTensors, dict[str, bool]]:
    """(`stored`, with every quantized matrix F as F.weight, F.scales and F.zeros under its name;
    for each F whether its file has it in 4 bits or less).

    `settings`: config.json's quantization_config, or None, in which case the quantizer may be known
    by the tensors' names. `metadata`: of the files' headers. `called`: the name of a tensor in the
    files, settings and headers, if it differs. `stays_floating`: whether the model computes the
    matrix of that name in floating point, in which case it is dequantized. Raises `InputError`,
    naming `source`, if nothing is quantized, or in an unsupported way.
    """
    asymmetric = round_again is not None and round_again.asymmetric
    if settings is None:
        _require_known_integers(stored, source)
    quantizer, settings = checked_quantizer(stored, metadata, settings, source, asymmetric)
    stored = quantizer.prepare(stored, settings, source)
    modules, others = _by_module(stored, quantizer)
    linears = {}
    for name, parts in modules.items():
        missing = [part for part in quantizer.required if part not in parts]
        if missing:
            raise InputError(
                f"{source}: {name}.{missing[0]} is missing, although {name} has other tensors; "
                "download the model's missing files, or quantize the floating-point model"
            )
        own = _own_name(name, next(iter(parts)), called)
        linears[name] = quantizer.read(Parts(parts, own, source), settings)
    if not linears:
        raise _no_tensors_of(stored, quantizer, source)
    for name in [name for name in linears if stays_floating(name)]:
        put_once(others, f"{name}.weight", dequantized(linears.pop(name)), source)
    if quantizer.embedding_by_columns:
        for name in [name for name in linears if name.endswith("embed_tokens")]:
            table = dequantized(linears.pop(name))
            by_rows = table.changed(lambda matrix: matrix.t().contiguous(), table.shape[::-1])
            put_once(others, f"{name}.weight", by_rows, source)
    columns = [
        tensor.shape[1]
        for name, tensor in others.items()
        if "layers." in name and len(tensor.shape) == 2 and ".adaptor." not in name
    ]
    for name, tensor in in_layout(linears, source, round_again, columns).stored.items():
        put_once(others, name, tensor, source)
    whole = with_experts_quantized(LazyTensors(others), source, round_again, called)
    return whole, {name: linear.fits_int4 for name, linear in linears.items()}


def _require_known_integers(stored: LazyTensors, source: str) -> None:
    """Refuse integers of a quantizer that nothing tells of."""
    if quantizer_by_names(stored) or is_unpacked(stored):
        return
    integers = sorted(
        name
        for name, tensor in stored.stored.items()
        if not tensor.dtype.is_floating_point and len(tensor.shape) > 1
    )
    if integers:
        found = dtype_name(stored.stored[integers[0]].dtype)
        raise InputError(
            f"{source}: {integers[0]} is {found}, and config.json does not say how it was "
            "quantized (quantization_config); use the config.json that the quantizer wrote, or the "
            "floating-point model"
        )


def _no_tensors_of(stored: LazyTensors, quantizer: Quantizer, source: str) -> InputError:
    if all_floating(stored):
        return not_quantized(quantizer.name, source)
    others = sorted(name for name in stored if "layers." in name and not _is_floating(stored, name))
    parts = ", ".join(quantizer.required or quantizer.parts)
    return InputError(
        f"{source}: config.json says that it is quantized by {quantizer.name}, but it has none of "
        f"the tensors of that format ({parts}); it has {', '.join(others[:2])} and the like, in "
        "another format; use the floating-point model"
    )


def not_quantized(name: str | None, source: str) -> InputError:
    """The error for a model in floating point whose settings say that `name` quantized it."""
    by = f"by {name}" if name else "by an unnamed method"
    return InputError(
        f"{source}: says it is quantized {by}, but all its tensors are in floating point; remove "
        "quantization_config (or quantization, compression_config) from its config.json, and run "
        "`quatrain quantize` on it"
    )


def all_floating(stored: LazyTensors) -> bool:
    """Whether no tensor of `stored` is of integers or of 8 bits, as quantizers' are."""
    return all(_is_floating(stored, name) for name in stored)


def _is_floating(stored: LazyTensors, name: str) -> bool:
    dtype = stored.stored[name].dtype
    return dtype.is_floating_point and dtype.itemsize > 1


def checked_quantizer(
    names: Iterable[str],
    metadata: Mapping[str, str],
    settings: Any,
    source: str,
    asymmetric: bool = False,
) -> tuple[Quantizer, dict[str, Any]]:
    """(the one that made the tensors `names`, its `settings`), as far as those can be read.

    `asymmetric`: whether groups may have zero points. Raises `InputError`, naming `source`, if
    nothing is quantized, or in a way that is not read.
    """
    names = set(names)
    known = quantizer_by_names(names)
    if known is None and settings is None and is_unpacked(names):
        return UNPACKED, {HEADERS: metadata}
    if known and (settings is None or (isinstance(settings, dict) and not method_of(settings))):
        settings = {**(settings or {}), "quant_method": known.name}
    if not isinstance(settings, dict):
        raise InputError(
            f"{source}: is a floating-point model (no quantization_config in config.json); "
            f"run `quatrain quantize {shell_word(source)} -o DIR` first"
        )
    quantizer = quantizer_of(settings, source)
    settings = settings | {HEADERS: metadata}
    quantizer.check(settings, source)
    if quantizer.asymmetric and not asymmetric:
        raise InputError(
            f"{source}: is in the format {quantizer.name.upper()}, whose groups have zero points, "
            f"which the int4 kernels do not support; run `quatrain convert {shell_word(source)} "
            "DIR --requantize-asymmetric`, which requantizes it and reports the error, or quantize "
            "the original model"
        )
    return quantizer, settings


def quantizer_of(settings: Mapping[str, Any], source: str) -> Quantizer:
    """The one that `settings` name. Raises `InputError`, naming `source`, if it is not read."""
    method = method_of(settings)
    quantizer = QUANTIZERS.get(str(method))
    if quantizer is None and method is None:
        raise InputError(
            f"{source}: its quantization_config has no quant_method; add the method that it was "
            f"quantized with ({', '.join(QUANTIZERS)}), or quantize the original model"
        )
    if quantizer is None:
        algorithm = settings.get("quant_algo")  # of ModelOpt, some of whose are read
        which = f" with quant_algo {str(algorithm)[:100]!r}" if algorithm else ""
        raise InputError(
            f"{source}: its quant_method is {method!r}{which}, expected one of "
            f"{', '.join(QUANTIZERS)}; run `quatrain quantize MODEL -o DIR` on the original "
            "model, in floating point"
        )
    return quantizer.other(settings) or quantizer


def _own_name(name: str, part: str, called: Mapping[str, str]) -> str:
    whole = f"{name}.{part}"
    return called.get(whole, whole).removesuffix(f".{part}")


def method_of(settings: Mapping[str, Any]) -> Any:
    """The name of the quantizer that made `settings`, None if they have none."""
    of_bitsandbytes = settings.get("load_in_4bit") or settings.get("load_in_8bit")
    return settings.get("quant_method") or ("bitsandbytes" if of_bitsandbytes else None)


def _by_module(
    stored: LazyTensors, quantizer: Quantizer
) -> tuple[dict[str, dict[str, StoredTensor]], dict[str, StoredTensor]]:
    """(the quantized matrices' tensors by module and part, all other tensors by name)."""
    modules: dict[str, dict[str, StoredTensor]] = {}
    others = {}
    # A floating-point weight without other parts is not quantized, even if it has the name of a
    # quantized one.
    quantized = {
        name.rpartition(".")[0]
        for name, tensor in stored.stored.items()
        if (part := name.rpartition(".")[2]) in quantizer.parts
        and (part != "weight" or not tensor.dtype.is_floating_point)
    }
    for name, tensor in stored.stored.items():
        module, _, part = name.rpartition(".")
        if part in quantizer.parts and module in quantized:
            modules.setdefault(module, {})[part] = tensor
        else:
            others[name] = tensor
    return modules, others
