"""What groups of compressed-tensors' settings say: whether their weights are in FP8, FP6 or FP4, as
all of a model or beside groups of integers, and to what it rounds activations as it runs."""

from collections.abc import Iterable, Mapping
from typing import Any

from quatrain.errors import InputError

_FORMATS = (
    None, "float-quantized", "naive-quantized", "nvfp4-pack-quantized", "mxfp4-pack-quantized",
    "mxfp6-pack-quantized", "mxfp8-quantized", "mixed-precision",
)  # fmt: skip


def is_floating(group: Any, form: Any) -> bool:
    """Whether the weights of `group`, in a model of the format `form`, are in FP8, FP6 or FP4 as
    `hugging_face.float8` reads them."""
    weights = group.get("weights") if isinstance(group, dict) else None
    if not isinstance(weights, dict) or (group.get("format") or form) not in _FORMATS:
        return False
    return weights.get("type") == "float" and weights.get("num_bits") in (4, 6, 8)


def is_of_activations(group: Any) -> bool:
    """Whether `group` rounds nothing but what modules read: of attention, queries, keys and values,
    whose linears are in other groups."""
    stated = group if isinstance(group, dict) else {}
    return stated.get("weights") is None and isinstance(stated.get("input_activations"), dict)


def check_activations(name: str, group: Mapping[str, Any], source: str) -> None:
    """Raise `InputError`, naming `source`, if the `group` called `name` quantizes outputs, or says
    of its activations what is no setting."""
    if group.get("output_activations"):
        raise InputError(
            f"{source}: its compressed-tensors group {name!r} quantizes outputs as "
            f"{group['output_activations']!r}, expected no quantization of outputs: calibrated "
            "scales of outputs are not supported. Quantize the model with scheme W4A16."
        )
    inputs = group.get("input_activations")
    if inputs and not isinstance(inputs, dict):
        raise InputError(
            f"{source}: its compressed-tensors group {name!r} quantizes activations as "
            f"{str(inputs)[:100]}, expected an object, or null; use the config.json that was "
            "written with the model"
        )


def notes_on_activations(settings: Any) -> tuple[str, ...]:
    """Notes on activations of int4 linears that `settings` quantize at run time, unless to int8 per
    token, which is 8da4w."""
    groups = settings.get("config_groups") if isinstance(settings, dict) else None
    found: dict[str, None] = {}
    for group in groups.values() if isinstance(groups, dict) else ():
        inputs = group.get("input_activations")
        if isinstance(inputs, dict) and not is_floating(group, settings.get("format")):
            stated = inputs.get("strategy")
            kind = f"{inputs.get('type', 'int')}{inputs.get('num_bits', 8)}"
            kind += f" per {stated}" if stated else ""
            of_all = "" if inputs.get("dynamic") is True else ", with calibrated scales,"
            found[kind + of_all] = None
    for of_8da4w in ("int8", "int8 per token"):
        found.pop(of_8da4w, None)
    return note_on_activations(found)


def note_on_activations(kinds: Iterable[str]) -> tuple[str, ...]:
    """A note on activations that a quantizer's settings round to `kinds` at run time, if any."""
    kinds = list(kinds)
    if not kinds:
        return ()
    return (
        f"Its quantization_config quantizes activations to {' and '.join(kinds)} at run time, "
        "which programs do not support: 8da4w quantizes them to int8 token by token, weight-only "
        "does not.",
    )
