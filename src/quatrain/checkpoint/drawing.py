"""How answers are drawn, by what a model's files say, as options of verbs: no program holds it."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

# Options of verbs that generate text, with the values under which each does nothing.
_OPTIONS: dict[str, tuple[float, ...]] = {
    "temperature": (),
    "top_k": (0,),
    "top_p": (1,),
    "min_p": (0,),
    "repetition_penalty": (1,),
}


def notes_on_drawing(
    source: str, stated: Mapping[str, Any], stops: Iterable[Any], unread: Iterable[str]
) -> tuple[str, ...]:
    """What there is to say of `source`: what it has `stated` by the names of options, the texts
    that are its `stops`, and what it has that no verb follows, by its names there."""
    options = [
        f"--{name.replace('_', '-')} {stated[name]:g}"
        for name, neutral in _OPTIONS.items()
        if type(stated.get(name)) in (int, float) and stated[name] not in neutral
    ]
    options += [f"--stop {shlex.quote(stop)}" for stop in stops if isinstance(stop, str)]
    notes = []
    if options:
        notes.append(
            f"{source} says how answers are generated, which no program holds: give it to "
            f"`quatrain run` or `chat` as {' '.join(options)}."
        )
    if unread := ", ".join(unread):
        notes.append(f"{source} has {unread}, which no verb follows.")
    return tuple(notes)
