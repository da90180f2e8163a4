"""Notes on the sampling settings in a model's files, as command-line options: programs do not store
them."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

# Options of commands that generate text, with the values under which each does nothing.
_OPTIONS: dict[str, tuple[float, ...]] = {
    "temperature": (),
    "top_k": (0,),
    "top_p": (1,),
    "min_p": (0,),
    "repetition_penalty": (1,),
}


def notes_on_sampling(
    source: str, stated: Mapping[str, Any], stops: Iterable[Any], unread: Iterable[str]
) -> tuple[str, ...]:
    """Notes on `source`: the sampling settings that it has `stated`, by option name, its `stops`
    (texts that end an answer), and its settings that no command supports (`unread`), by their names
    there."""
    options = [
        f"--{name.replace('_', '-')} {stated[name]:g}"
        for name, neutral in _OPTIONS.items()
        if type(stated.get(name)) in (int, float) and stated[name] not in neutral
    ]
    options += [f"--stop {shlex.quote(stop)}" for stop in stops if isinstance(stop, str)]
    notes = []
    if options:
        notes.append(
            f"{source} has sampling settings, which programs do not store: give them to `quatrain "
            f"run` or `chat` as {' '.join(options)}."
        )
    if unread := ", ".join(unread):
        notes.append(f"{source} has {unread}, which no command supports.")
    return tuple(notes)
