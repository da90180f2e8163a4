"""Checks stored biases against config.json, which says whether the model has them."""

import re
from collections.abc import Mapping

from quatrain.checkpoint.families.family import HuggingFaceReading
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.errors import InputError

_BIAS = re.compile(
    r"layers\.\d+\.(?:attention\.(wo)|attention\.w[qkv]|(feed_forward)\.w[123])\.bias"
)


def stated_biases(
    tensors: LazyTensors,
    called: Mapping[str, str],
    fields: Fields,
    reading: HuggingFaceReading,
) -> LazyTensors:
    """`tensors`, by Meta name, without biases of nothing but 0 that the model does not have, which
    quantizers write. `called`: what the file calls a tensor.

    Raises `InputError` for others that it does not have: transformers would leave them out,
    llama.cpp would not; and where it has biases by a field of config.json and none is stored.
    """
    unused = set()
    _require_stated(tensors, called, fields, reading)
    for name in tensors:
        match = _BIAS.fullmatch(name)
        if match is None:
            continue
        part = match[1] or match[2] or "qkv"
        if not has_bias(part, fields, reading):
            if tensors[name].any():
                raise _refused(called.get(name, name), _stated(reading, part), fields.source)
            unused.add(name)
    return tensors.without(unused)


def _require_stated(
    tensors: LazyTensors,
    called: Mapping[str, str],
    fields: Fields,
    reading: HuggingFaceReading,
) -> None:
    """Refuse a model all of whose biases of queries, keys and values, or of feed-forwards, are
    missing."""
    for part, linear in (("qkv", "attention.wq"), ("feed_forward", "feed_forward.w1")):
        stated = _stated(reading, part)
        if not isinstance(stated, str) or not fields.flag(stated):
            continue
        weights = [name for name in tensors if name.endswith(f"{linear}.weight")]
        if weights and not any(name.endswith(f"{linear}.bias") for name in tensors):
            missing = called.get(weights[0], weights[0]).removesuffix("weight") + "bias"
            raise fields.refusal(
                stated,
                f"false, because {missing}, and others like it, are missing; set it to false if "
                "the model was trained without, otherwise download the model's missing files",
            )


def has_bias(part: str, fields: Fields, reading: HuggingFaceReading) -> bool:
    """Whether the linears of `part` ("qkv", "wo" or "feed_forward") have a bias, as config.json's
    `fields` say."""
    stated = _stated(reading, part)
    return fields.flag(stated) if isinstance(stated, str) else stated


def _stated(reading: HuggingFaceReading, part: str) -> str | bool:
    if part == "feed_forward":
        return "mlp_bias" if "mlp_bias" in reading.defaults else reading.biases.feed_forward
    return reading.biases.output if part == "wo" else reading.biases.qkv


def _refused(name: str, stated: str | bool, source: str) -> InputError:
    why, remedy = f"{stated} is false, or left out", f"state {stated}: true"
    if not isinstance(stated, str):
        why, remedy = "models of this model_type have no such bias", "correct the model_type"
    return InputError(
        f"{source}: the model's file has {name}, but {why}; if the bias belongs to the model, "
        f"{remedy}, otherwise save the model without it"
    )
