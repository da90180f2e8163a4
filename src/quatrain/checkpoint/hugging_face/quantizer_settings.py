"""Checks a folder's quantizer settings against its tensors."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.folder import MODELOPT_FILE, read_folder
from quatrain.checkpoint.hugging_face.tensors.floating_settings import ROUNDED, is_float8
from quatrain.checkpoint.quantizers.bitnet import BITNET
from quatrain.checkpoint.quantizers.gptq import format_of
from quatrain.checkpoint.quantizers.modelopt import MODELOPT
from quatrain.checkpoint.quantizers.read import (
    all_floating,
    method_of,
    not_quantized,
    quantizer_of,
)
from quatrain.errors import InputError
from quatrain.json_files import read_object

_OLDER_SETTINGS = {"gptq": "quantize_config.json", "awq": "quant_config.json"}


def quantization_settings(fields: Fields, names: Iterable[str], folder: Path) -> Any:
    """config.json's quantization_config, or what an older AutoGPTQ or AutoAWQ wrote into a file of
    its own; None if the tensors `names` are not a quantizer's.

    Raises `InputError` if they are, and nothing says how they were made.
    """
    settings = stated_settings(fields)
    if settings is not None:
        _require_one_format(settings, folder)
    if settings is not None or not any(name.endswith(".qweight") for name in names):
        return settings
    for method, name in _OLDER_SETTINGS.items():
        if (folder / name).is_file():
            return {"quant_method": method} | read_object(folder / name)
    raise InputError(
        f"{folder}: holds quantized tensors (.qweight), config.json has no quantization_config, "
        f"and there is no {' or '.join(_OLDER_SETTINGS.values())}; download that file, or add the "
        "quantizer's settings to config.json"
    )


def _require_one_format(settings: dict[str, Any], folder: Path) -> None:
    """Refuse a folder that states two GPTQ formats, one read by GPTQModel and one by transformers:
    their zero points differ by one."""
    beside = folder / _OLDER_SETTINGS["gptq"]
    if method_of(settings) != "gptq" or not beside.is_file():
        return
    stated, other = format_of(settings), format_of(read_object(beside))
    if stated != other:
        raise InputError(
            f"{beside}: its GPTQ format is {other!r}, but config.json's is {stated!r}: their zero "
            "points differ by one; set both to the format that the model was quantized in, or "
            f"remove {beside.name} if it belongs to another model"
        )


def require_known_quantizer(fields: Fields, folder: Path) -> None:
    """Refuse a folder whose config.json states a quantizer that is not read, before its tensors,
    which may be of types that are not read either; and one whose tensors are none of a quantizer's.
    """
    settings = stated_settings(fields)
    if settings is None or (is_float8(settings) and method_of(settings) not in ROUNDED):
        return
    # Fine-tuning keeps the settings of a base that was loaded in 4 bits, and saves floating-point
    # weights; so do models trained only for int4. BitNet's settings say how weights are quantized
    # at run time.
    if method_of(settings) != BITNET.name and _holds_floating_point(folder):
        raise not_quantized(method_of(settings), str(folder))
    if method_of(settings) not in (None, *ROUNDED):
        quantizer_of(settings, str(folder))


def _holds_floating_point(folder: Path) -> bool:
    try:
        return all_floating(read_folder(folder)[0])
    except InputError:
        return False


def stated_settings(fields: Fields) -> dict[str, Any] | None:
    """The quantizer's settings in config.json, or in ModelOpt's file beside it, or None. MLX's
    settings take precedence over those left over from its source model."""
    of_mlx = fields.get("quantization")
    if isinstance(of_mlx, dict) and ("bits" in of_mlx or "group_size" in of_mlx):
        return {"quant_method": "mlx"} | of_mlx
    # The last name is compressed-tensors' first.
    names = ("quantization_config", "quantization", "compression_config")
    stated = next((name for name in names if fields.get(name)), None)
    if stated is not None and not isinstance(fields[stated], dict):
        raise fields.refusal(stated, "an object of settings, or null")
    return _of_modelopt(Path(fields.source).parent) if stated is None else fields[stated]


def _of_modelopt(folder: Path) -> dict[str, Any] | None:
    """What ModelOpt states in a file of its own, which alone its first releases wrote; None if that
    quantizes nothing but the KV cache."""
    file = folder / MODELOPT_FILE
    stated = read_object(file).get("quantization") if file.is_file() else None
    if not isinstance(stated, dict) or not stated.get("quant_algo"):
        return None
    return {"quant_method": MODELOPT.name} | stated
