"""The model families of the Hugging Face hub, by `model_type`: one file each."""

from quatrain.checkpoint.families.family import Family
from quatrain.checkpoint.families.gemma import GEMMA2, GEMMA3
from quatrain.checkpoint.families.granite import GRANITE
from quatrain.checkpoint.families.llama import LLAMA
from quatrain.checkpoint.families.llama4 import LLAMA4
from quatrain.checkpoint.families.mistral import MISTRAL
from quatrain.checkpoint.families.phi import PHI
from quatrain.checkpoint.families.qwen import QWEN2, QWEN3
from quatrain.checkpoint.families.smollm3 import SMOLLM3
from quatrain.errors import InputError

FAMILIES: dict[str, Family] = {
    "llama": LLAMA,
    "mistral": MISTRAL,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "phi3": PHI,
    "gemma2": GEMMA2,
    "gemma3_text": GEMMA3,
    "granite": GRANITE,
    "smollm3": SMOLLM3,
    "llama4_text": LLAMA4,
}


def family_of(fields: dict, source: str) -> Family:
    """The family that config.json's `model_type` names. Raises `InputError` for another."""
    model_type = fields.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise InputError(
            f"{source}: model_type is {model_type!r}, expected one of {', '.join(FAMILIES)}"
        )
    return FAMILIES[model_type]
