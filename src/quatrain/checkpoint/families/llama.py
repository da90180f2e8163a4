"""Llama 2, 3, 3.1, 3.2 and SmolLM2: what all others are told apart from."""

from typing import Any

from quatrain.checkpoint.families.family import Family, Fields, sliding_window
from quatrain.errors import InputError


def _params(fields: Fields, source: str) -> dict[str, Any]:
    if fields.get("use_sliding_window") and sliding_window(fields, source):
        raise InputError(
            f"{source}: sliding_window is {fields['sliding_window']}, which no Llama has; "
            "its model_type may be wrong"
        )
    return {}


LLAMA = Family(params=_params)
