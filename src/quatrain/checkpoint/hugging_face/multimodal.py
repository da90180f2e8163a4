"""The text model inside a model that also sees, as the hub has Llama 4, Gemma 3 and Mistral 3."""

import re

from quatrain.checkpoint.families import text_model_type
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.hugging_face.fields import Fields, refusal

_TEXT = re.compile(r"(?:language_model\.|model\.language_model\.)(.+)")
_OTHER = re.compile(r"(?:model\.)?(?:vision_model|vision_tower|multi_modal_projector)\..+")

_SEVERAL = ("mistral3",)  # whose text model may be of one family or another


def text_fields(fields: Fields, source: str) -> Fields:
    """config.json's fields with those of its text model in place of its own."""
    text_type = text_model_type(fields.get("model_type"))
    if text_type is None:
        return fields
    nested = fields.get("text_config")
    if not isinstance(nested, dict):
        raise refusal(fields, "text_config", "an object with the text model's fields", source)
    if fields["model_type"] in _SEVERAL and nested.get("model_type") is None:
        raise refusal(nested, "model_type", "'mistral' or 'ministral3' in text_config", source)
    outer = {name: value for name, value in fields.items() if name != "text_config"}
    return outer | {"model_type": text_type} | nested  # which may leave it out


def text_tensors(stored: LazyTensors) -> LazyTensors:
    """The text model's tensors under the names that it has by itself; what sees is left out."""
    names = {}
    for name in stored:
        if _OTHER.fullmatch(name):
            continue
        match = _TEXT.fullmatch(name)
        if not match:
            names[name] = name
        elif match[1].startswith(("model.", "lm_head.")):
            names[name] = match[1]
        else:  # transformers 5 has the text model's parts under model.language_model
            names[name] = f"model.{match[1]}"
    return stored.renamed(names)
