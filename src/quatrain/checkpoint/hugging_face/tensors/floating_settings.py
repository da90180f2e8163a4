"""Which quantizers' settings are of models that are read as floating point."""

import re
from collections.abc import Iterator
from typing import Any

from quatrain.checkpoint.hugging_face.tensors.bitsandbytes import BITSANDBYTES
from quatrain.checkpoint.hugging_face.tensors.float8 import FBGEMM, weights_of
from quatrain.checkpoint.hugging_face.tensors.hqq import HQQ
from quatrain.checkpoint.quantizers.auto_round import AUTO_ROUND, data_types
from quatrain.checkpoint.quantizers.compressed_groups import is_floating, is_of_activations
from quatrain.checkpoint.quantizers.mlx import FLOATING_MODES
from quatrain.checkpoint.quantizers.read import method_of
from quatrain.checkpoint.quantizers.torchao import TORCHAO

ROUNDED = (BITSANDBYTES, HQQ)  # whose settings fine-tuning leaves beside weights of its own
_OF_MODELOPT = (
    "FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO", "MXFP8", "NVFP4", "NVFP4_AWQ",
    "W4A16_NVFP4", "W4A8_NVFP4_FP8", "MXFP4", "W4A8_MXFP4_FP8",
)  # fmt: skip
_OF_TORCHAO = {
    "Float8WeightOnlyConfig", "Float8DynamicActivationFloat8WeightConfig",
    "Float8StaticActivationFloat8WeightConfig",
}  # fmt: skip
_OF_AUTO_ROUND = re.compile(r"(?:(?:mx|nv)_)?fp(?!.*e5m3)")


def is_float8(settings: Any) -> bool:
    """Whether config.json's quantization_config `settings` describe only FP8 or FP4 matrices, or
    bitsandbytes' or HQQ's, or MLX's of which some are."""
    if not isinstance(settings, dict):
        return False
    method, groups = method_of(settings), settings.get("config_groups")
    if method == "compressed-tensors" and isinstance(groups, dict) and groups:
        of_weights = [group for group in groups.values() if not is_of_activations(group)]
        return all(is_floating(group, settings.get("format")) for group in of_weights or [None])
    if method == "modelopt":
        mixed = settings.get("quantized_layers")
        layers = list(mixed.values()) if isinstance(mixed, dict) else []
        return all(_is_of_modelopt(layer) for layer in layers or [settings])
    if method == "mlx":
        modules = [settings, *(value for value in settings.values() if isinstance(value, dict))]
        modes = [module.get("mode", "affine") for module in modules]
        floating = [mode for mode in modes if mode in FLOATING_MODES]
        return bool(floating) and len(floating) + modes.count("affine") == len(modes)
    if method in (AUTO_ROUND.name, *AUTO_ROUND.other_names):
        return all(_OF_AUTO_ROUND.match(one) for one in data_types(settings))
    if method == "quark":
        parts = (settings.get(f"layer_{kind}quant_config") for kind in ("", "type_"))
        of_layers = [each for part in parts if isinstance(part, dict) for each in part.values()]
        # What its algorithms do besides, such as rotations, goes unread.
        return not settings.get("algo_config") and all(
            _is_of_quark(each) for each in (settings.get("global_quant_config"), *of_layers)
        )
    if method == TORCHAO.name:
        configs = set(_configs_of_torchao(settings.get("quant_type")))
        return bool(configs) and configs <= _OF_TORCHAO
    return method in ("fp8", FBGEMM, "mxfp8", *ROUNDED)


def _configs_of_torchao(stated: Any) -> Iterator[str]:
    """The classes in `stated`, the JSON of one of torchao's configs, that say how weights are
    rounded; of one that has others by module name, those."""
    for value in stated.values() if isinstance(stated, dict) else ():
        yield from _configs_of_torchao(value)
    kind = stated.get("_type") if isinstance(stated, dict) else None
    if isinstance(kind, str) and "Weight" in kind and kind.endswith("Config"):
        yield kind


def _is_of_quark(layer: Any) -> bool:
    return str(weights_of(layer, "weight").get("dtype")) in ("fp8_e4m3", "fp8_e5m2")


def _is_of_modelopt(layer: Any) -> bool:
    """Some of its names are in small letters."""
    return isinstance(layer, dict) and str(layer.get("quant_algo")).upper() in _OF_MODELOPT


def has_float8_groups(settings: Any) -> bool:
    """Whether `settings` are of matrices in FP8 or FP4 beside others (compressed-tensors)."""
    groups = settings.get("config_groups") if isinstance(settings, dict) else None
    form = settings.get("format") if isinstance(settings, dict) else None
    return isinstance(groups, dict) and any(is_floating(one, form) for one in groups.values())
