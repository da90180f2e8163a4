"""Notes on a GGUF file's sampling settings, `general.sampling.*`."""

from collections.abc import Mapping
from typing import Any

from quatrain.checkpoint.sampling_notes import notes_on_sampling

_PREFIX = "general.sampling."
_OPTIONS = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}


def sampling_notes(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Notes on the sampling settings in this `metadata`."""
    found = {
        key.removeprefix(_PREFIX): value
        for key, value in metadata.items()
        if key.startswith(_PREFIX)
    }
    stated = {option: found.pop(key, None) for key, option in _OPTIONS.items()}
    return notes_on_sampling("The file", stated, (), (f"{_PREFIX}{key}" for key in sorted(found)))
