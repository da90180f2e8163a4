"""Finds the text model inside a multimodal model."""

import math
import re
from collections.abc import Mapping
from typing import Any

from quatrain.checkpoint.families.multimodal import Multimodal
from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.rope.older_rope_fields import (
    refuse_two_values,
    refuse_unread_base,
)

# As the model's own classes have it, and as transformers 5 has those that once had a whole text
# model (with its output layer) inside. transformers writes Qianfan-OCR's layers as an encoder's.
_TEXT = re.compile(r"(?:model\.)?(?:language_model|text_model)\.(model\.|)(?:encoder\.)?(.+)")
# Fields of the whole model that apply to its text model; its other fields describe the whole, or
# its encoders.
_OF_THE_WHOLE = {
    "architectures", "tie_word_embeddings", "bos_token_id", "eos_token_id", "quantization_config",
    "quantization", "compression_config",
}  # fmt: skip


def text_fields(fields: Fields, whole: Multimodal) -> Fields:
    """The fields of the text model, of those of a config.json of the kind `whole`."""
    if whole.inside:
        name = f"{whole.inside}_config"
        if not fields.object_of(name):
            raise fields.refusal(name, "an object with the text model's fields")
        stated = fields.keys() & (_OF_THE_WHOLE - {"tie_word_embeddings"})
        outer = {field: fields[field] for field in stated if fields[field] is not None}
        fields = Fields(outer, fields.source) | fields.object_of(name)
    stated_text = fields.get(whole.text_config)
    if stated_text is None and whole.flat:
        refuse_two_values(fields)
        return fields | {"model_type": whole.text}
    if not isinstance(stated_text, dict):
        expected = "an object with the text model's fields"
        if stated_text is None and "hidden_size" in fields:
            expected += f"; if config.json is of a text model alone, its model_type is {whole.text}"
        raise fields.refusal(whole.text_config, expected)
    nested = Fields(stated_text, fields.source)
    refuse_two_values(nested)
    _refuse_unread_base(nested, whole)
    # Some releases have the whole's there, or a name of their own.
    stated, own = nested.get("model_type"), fields.get("model_type")
    stated = None if stated in (own, f"{own}_text") else stated
    named = _OF_THE_WHOLE & fields.keys()
    outer = {name: fields[name] for name in named if fields[name] is not None}
    # Where both state the same, transformers takes what the whole states.
    inner = {name: nested[name] for name in nested if name not in outer}
    model_type = whole.text if stated is None else stated
    of_both = {"model_type": model_type, "tie_word_embeddings": _tied(fields, nested)}
    return Fields({**outer, **whole.defaults, **inner, **of_both}, fields.source)


def _refuse_unread_base(text: Fields, whole: Multimodal) -> None:
    scaled = any(text.object_of(name) for name in ("rope_scaling", "rope_parameters"))
    if whole.base is not None and not scaled and text.get("rope_theta") is not None:
        refuse_unread_base(text, whole.base)


def _tied(fields: Fields, nested: Fields) -> Any:
    """`tie_word_embeddings`: transformers 5 asks the whole, releases before it asked the text
    model, and either may have left it out for its default."""
    stated = nested.get("tie_word_embeddings")
    return True if stated is True else fields.get("tie_word_embeddings")


def text_tensors(
    stored: LazyTensors, whole: Multimodal | None
) -> tuple[LazyTensors, dict[str, StoredTensor]]:
    """(the text model's tensors under the names that it has by itself, those of the modules beside
    it of a model of the kind `whole`)."""
    names, others = {}, {}
    before = f"{whole.inside}." if whole is not None and whole.inside else ""
    for stored_name, tensor in stored.stored.items():
        name = stored_name.removeprefix(before)
        if whole is not None and _module(name) in whole.others:
            others[name] = tensor
            continue
        match = _TEXT.fullmatch(name)
        if not match:
            names[stored_name] = name
        elif match[1] or match[2].startswith("lm_head."):
            names[stored_name] = match[1] + match[2]
        else:
            names[stored_name] = f"model.{match[2]}"
    return stored.renamed(names), others


def left_out(model_type: str, text: str, others: Mapping[str, StoredTensor]) -> tuple[str, ...]:
    """A note on a model of `model_type`, of which only the text model `text` is read and the
    tensors `others` are not."""
    modules: dict[str, list[StoredTensor]] = {}
    for name, tensor in others.items():
        modules.setdefault(_module(name), []).append(tensor)
    parts = [f"{module} ({_size(tensors)})" for module, tensors in sorted(modules.items())]
    rest = f". Not used: {', '.join(parts)}" if parts else ""
    return (
        f"config.json's model_type is {model_type}, a multimodal model; only its text model "
        f"({text}) is read{rest}.",
    )


def _module(name: str) -> str:
    return name.removeprefix("model.").partition(".")[0]


def _size(tensors: list[StoredTensor]) -> str:
    size = sum(math.prod(tensor.shape) * tensor.dtype.itemsize for tensor in tensors)
    return f"{len(tensors)} tensor{'s' if len(tensors) > 1 else ''}, {size / 1e6:.1f} MB"
