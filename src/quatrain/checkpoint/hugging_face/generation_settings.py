"""What generation_config.json says of answers besides the tokens that begin and end a text.

A program holds nothing of it. Defaults are those of transformers' `GenerationConfig`.
"""

import shlex
from pathlib import Path
from typing import Any

from quatrain.checkpoint.hugging_face.fields import Fields, read_fields

GENERATION_CONFIG = "generation_config.json"
# Options of verbs that generate text, by the field, with the values under which it does nothing.
_OF_DRAWING = {"top_k": (0,), "top_p": (1,), "min_p": (0,)}
_OF_ANY = {"repetition_penalty": (1,)}
_STOPS = "stop_strings"
# What no verb does.
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
    """What there is to say of how a Hugging Face `folder` has answers generated. Raises
    `InputError` where the file is no object."""
    file = folder / GENERATION_CONFIG
    if not file.is_file():
        return ()
    fields = read_fields(file)
    options = " ".join(_options(fields))
    unread = [name for name, neutral in _UNREAD.items() if _says(fields, name, neutral)]
    notes = []
    if options:
        notes.append(
            f"{GENERATION_CONFIG} says how answers are generated, which no program holds: give it "
            f"to `quatrain run` or `chat` as {options}."
        )
    if unread:
        notes.append(f"{GENERATION_CONFIG} has {', '.join(unread)}, which no verb follows.")
    return tuple(notes)


def _options(fields: Fields) -> list[str]:
    """What verbs that generate text are to be given for `fields`."""
    stated: dict[str, Any] = {}
    if fields.get("do_sample") is True:
        stated = {"temperature": 1.0, "top_k": 50} | {
            name: fields[name]
            for name in ("temperature", *_OF_DRAWING)
            if fields.get(name) is not None
        }
    stated |= {name: fields.get(name) for name in _OF_ANY}
    neutral = {"temperature": (), **_OF_DRAWING, **_OF_ANY}
    options = [
        f"--{name.replace('_', '-')} {value}"
        for name, value in stated.items()
        if type(value) in (int, float) and value not in neutral[name]
    ]
    stops = fields.get(_STOPS)
    stops = stops if isinstance(stops, list) else [stops]
    return options + [f"--stop {shlex.quote(stop)}" for stop in stops if isinstance(stop, str)]


def _says(fields: Fields, name: str, neutral: tuple[Any, ...]) -> bool:
    value = fields.get(name)
    return value is not None and value not in neutral
