"""A plan of the activation scheme of each linear, which users can read and edit.

A TOML file of one line a linear, or a pattern of them:

    default = "8da4w"

    [linears]
    "layers.*.feed_forward.w2" = { scheme = "weight-only" }
    "layers.3.attention.wq" = { scheme = "8da4w", kl = 0.000012 }
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.short_lists import and_more
from quatrain.text_files import read_text

DEFAULT_MAX_KL = 0.005  # nats that int8 activations may cost where schemes are chosen
_SCHEMES = " or ".join(Scheme)


@dataclass(frozen=True)
class PlannedLinear:
    """The entry of a linear: its scheme; the KL divergence, in nats, measured with only this linear
    in 8da4w (None: not measured); and why it has that scheme."""

    scheme: Scheme
    kl: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class SchemePlan:
    """The schemes of a program's int4 linears.

    Attributes:
        linears: By name, as in Meta's checkpoints ("layers.0.attention.wq"), or pattern ("*.w2");
            of several that match a linear the last one counts.
        default: Of linears that no entry matches; None: there must be none.
        notes: In whole sentences, how it came about.
        source: What the plan was read from, for errors.
    """

    linears: Mapping[str, PlannedLinear]
    default: Scheme | None = None
    notes: list[str] = field(default_factory=list)
    source: str = "the scheme plan"

    def schemes(self, names: Iterable[str]) -> dict[str, Scheme]:
        """The scheme of each int4 linear of `names`. Raises `InputError` for a linear without an
        entry, and for an entry that matches no linear."""
        names = list(names)
        found = dict.fromkeys(names, self.default)
        for pattern, planned in self.linears.items():
            matching = [name for name in names if fnmatchcase(name, pattern)]
            if not matching:
                raise InputError(
                    f"{self.source}: {pattern!r} matches no int4 linear of this checkpoint; their "
                    f"names are {names[0]!r}" + (f" to {names[-1]!r}" if len(names) > 1 else "")
                )
            found.update(dict.fromkeys(matching, planned.scheme))
        missing = [name for name, scheme in found.items() if scheme is None]
        if missing:
            raise InputError(
                f"{self.source}: has no scheme for {and_more(list(map(repr, missing)))}; add a "
                'line, or above [linears] default = "8da4w"'
            )
        return {name: scheme for name, scheme in found.items() if scheme is not None}

    @property
    def only_scheme(self) -> Scheme | None:
        """The scheme of all linears, if there is one."""
        stated = {planned.scheme for planned in self.linears.values()} | {self.default} - {None}
        return stated.pop() if len(stated) == 1 else None

    def as_toml(self) -> str:
        """The plan as a file that `read_scheme_plan` reads."""
        lines = [f"# {note}" for note in self.notes]
        if self.default is not None:
            lines.append(f'default = "{self.default}"')
        lines += ["", "[linears]"]
        for name, planned in self.linears.items():
            measured = "" if planned.kl is None else f", kl = {planned.kl:.3g}"
            reason = f"  # {planned.reason}" if planned.reason else ""
            lines.append(f'"{name}" = {{ scheme = "{planned.scheme}"{measured} }}{reason}')
        return "\n".join(lines).strip() + "\n"


def read_scheme_plan(path: Path) -> SchemePlan:
    """The plan in the TOML file `path`. Raises `InputError` if it is none."""
    try:
        stated = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: cannot be read as TOML: {error}") from error
    where = str(path)
    _known_keys(where, stated, ("default", "linears"))
    linears = stated.get("linears", {})
    if not isinstance(linears, dict):
        raise InputError(f"{where}: linears is not a table, expected [linears] and a line for each")
    default = stated.get("default")
    return SchemePlan(
        {name: _planned_linear(f"{where}: {name!r}", entry) for name, entry in linears.items()},
        None if default is None else _scheme(f"{where}: default", default),
        source=where,
    )


def _planned_linear(where: str, entry: Any) -> PlannedLinear:
    if not isinstance(entry, dict):
        entry = {"scheme": entry}
    _known_keys(where, entry, ("scheme", "kl"))
    kl = entry.get("kl")
    if kl is not None and (isinstance(kl, bool) or not isinstance(kl, int | float)):
        raise InputError(f"{where}: kl is {kl!r}, expected a number of nats")
    return PlannedLinear(_scheme(where, entry.get("scheme")), kl)


def _scheme(where: str, stated: Any) -> Scheme:
    if stated not in tuple(Scheme):
        raise InputError(f"{where}: scheme is {stated!r}, expected {_SCHEMES}")
    return Scheme(stated)


def _known_keys(where: str, stated: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in stated:
        if key not in known:
            raise InputError(f"{where}: {key!r} is unknown, expected {' or '.join(known)}")
