"""Notes on the settings in generation_config.json, except the tokens that begin and end a text.

Defaults are those of transformers' `GenerationConfig`.
"""

from pathlib import Path
from typing import Any

from quatrain.checkpoint.hugging_face.fields import Fields, read_fields
from quatrain.checkpoint.sampling_notes import notes_on_sampling

GENERATION_CONFIG = "generation_config.json"
_OF_DRAWING = {"temperature": 1.0, "top_k": 50, "top_p": None, "min_p": None}
# What no command does, with the values under which it does nothing.
_UNREAD: dict[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "penalty_alpha": (0,),
    "typical_p": (1,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "no_repeat_ngram_size": (0,),
    "bad_words_ids": ([],),
    "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],),
    "sequence_bias": ({}, []),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "exponential_decay_length_penalty": (),
    "guidance_scale": (1,),
}


def generation_notes(folder: Path) -> tuple[str, ...]:
    """Notes on the generation settings of a Hugging Face `folder`. Raises `InputError` if the file
    is not an object."""
    file = folder / GENERATION_CONFIG
    if not file.is_file():
        return ()
    fields = read_fields(file)
    stated: dict[str, Any] = {"repetition_penalty": fields.get("repetition_penalty")}
    if fields.get("do_sample") is True:
        stated |= {
            name: usual if fields.get(name) is None else fields[name]
            for name, usual in _OF_DRAWING.items()
        }
    stops = fields.get("stop_strings")
    unread = [name for name, neutral in _UNREAD.items() if _is_set(fields, name, neutral)]
    stops = stops if isinstance(stops, list) else [stops]
    return notes_on_sampling(GENERATION_CONFIG, stated, stops, unread)


def _is_set(fields: Fields, name: str, neutral: tuple[Any, ...]) -> bool:
    value = fields.get(name)
    return value is not None and value not in neutral
