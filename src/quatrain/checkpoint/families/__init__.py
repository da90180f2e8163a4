"""The model families: one file (or folder) each, found by what it defines.

A module of this package that has a `Family` is all that there is to a family: nothing lists them.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

from quatrain.checkpoint.families.family import (
    Family,
    GgufReading,
    HuggingFaceReading,
    MetaReading,
)
from quatrain.checkpoint.families.refused import lacking
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.errors import InputError


def _defined() -> Iterator[Family]:
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, Family):
                yield value


FAMILIES = tuple(_defined())

_BY_MODEL_TYPE = {family.hugging_face.model_type: family.hugging_face for family in FAMILIES}
_UNNAMED = {family.hugging_face.unnamed: family.hugging_face for family in FAMILIES}
_BY_ARCHITECTURE = {family.gguf.architecture: family.gguf for family in FAMILIES if family.gguf}
_META = [family.meta for family in FAMILIES if family.meta]


def with_model_type(fields: Fields) -> Fields:
    """`fields` with the `model_type` of models whose own files state none."""
    kinds = fields.get("architectures")
    if fields.get("model_type") is not None or not isinstance(kinds, list) or len(kinds) != 1:
        return fields
    reading = _UNNAMED.get(kinds[0]) if kinds[0] and isinstance(kinds[0], str) else None
    return fields | {"model_type": reading.model_type} if reading else fields


def hugging_face_reading(fields: Fields) -> HuggingFaceReading:
    """The reading that config.json's `model_type` names. Raises `InputError` for another."""
    model_type = fields.get("model_type")
    if model_type is None:
        raise InputError(
            f"{fields.source}: has no model_type, which says what kind of model this is; add it "
            'as in the original config.json of the model, such as "model_type": "llama" for '
            f"a LlamaForCausalLM (architectures is {str(fields.get('architectures'))[:80]})"
        )
    if not isinstance(model_type, str) or model_type not in _BY_MODEL_TYPE:
        raise InputError(
            f"{fields.source}: model_type is {model_type!r}{lacking(str(model_type))}, "
            f"expected one of {', '.join(_BY_MODEL_TYPE)}"
        )
    return _BY_MODEL_TYPE[model_type]


def gguf_reading(architecture: str, source: str) -> GgufReading:
    """The reading of a GGUF file of `architecture`. Raises `InputError`, naming `source`, for
    another."""
    reading = _BY_ARCHITECTURE.get(architecture)
    if reading is None:
        raise InputError(
            f"{source}: its architecture is {architecture}{lacking(architecture)}, "
            f"expected one of {', '.join(_BY_ARCHITECTURE)}"
        )
    return reading


def meta_reading(params: dict[str, Any]) -> MetaReading:
    """The reading of a params.json: of the family whose `marks` it has, or of all others."""
    marked = [reading for reading in _META if reading.marks & params.keys()]
    return (marked or [reading for reading in _META if not reading.marks])[0]
