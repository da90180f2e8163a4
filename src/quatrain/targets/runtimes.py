"""What each release of ExecuTorch's Vulkan runtime registers, from `runtimes.toml`."""

import re
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from quatrain.errors import InputError
from quatrain.program import VulkanGraph
from quatrain.program.vulkan.linear_kernels import DYNAMIC_LINEAR
from quatrain.targets.catalogue import as_fields, load_toml, release

# What PEP 440 writes behind a number for what is not yet a release, as in 1.4.0rc1 or 1.5.0.dev3.
_PRE_RELEASE = re.compile(r"\d[._-]?(a|b|c|rc|alpha|beta|pre|preview|dev)[._-]?\d*", re.IGNORECASE)


@dataclass(frozen=True)
class RegisteredOperator:
    """An operator that releases register: from `since` to `until` (None: to the newest).

    `arguments`: how many it reads, outputs counted, None if that is unknown; `arguments_by_release`
    where it differs. `source`: file and line.
    """

    name: str
    since: str
    source: str
    until: str | None = None
    arguments: int | None = None
    arguments_by_release: dict[str, int] = field(default_factory=dict)

    def is_in(self, runtime: str) -> bool:
        """Whether that release registers it."""
        return _spans(runtime, self.since, self.until)

    def arguments_in(self, runtime: str) -> int | None:
        """How many arguments that release reads; None if that is unknown."""
        return self.arguments_by_release.get(release_line(runtime), self.arguments)


@dataclass(frozen=True)
class Shaders:
    """The shaders of an operator that releases `since` to `until` have: for these storages and
    types of its result, or of the argument `of`. `source`: their files."""

    operator: str
    since: str
    storages: tuple[str, ...]
    dtypes: tuple[str, ...]
    source: str
    until: str | None = None
    of: str = "out"

    def takes(self, storage: str, dtype: str) -> bool:
        """Whether there is one for them."""
        return storage in self.storages and dtype in self.dtypes


@cache
def known_releases() -> tuple[str, ...]:
    """Every release line that is known, the oldest first: '1.0', ..., '1.5'."""
    return tuple(entry["version"] for entry in load_toml("runtimes.toml")["release"])


def newest_release() -> str:
    """The newest release line that is known."""
    return known_releases()[-1]


def release_line(version: str) -> str:
    """'1.3.1' -> '1.3'."""
    return "{}.{}".format(*release(version))


def require_release(version: str) -> None:
    """Refuse, with `InputError`, what is neither a known release line of ExecuTorch, such as
    '1.3', nor a version of one that was published, such as '1.3.1' or '1.3.1+cpu'."""
    line = release_line(version)
    if line not in known_releases():
        known = ", ".join(known_releases())
        raise InputError(f"nothing is known of ExecuTorch runtime {version!r}; known are {known}")
    published = _entry_of(line)["published"]
    if version.partition("+")[0] in (line, *published):
        return
    if _PRE_RELEASE.search(version):
        what = "is a pre-release, which is not in the catalogue: only releases are"
    else:
        what = "was never published, as far as is known"
    raise InputError(
        f"ExecuTorch runtime {version!r} {what}; the releases of {line} are "
        f"{', '.join(published)}, and {line!r} means what they have in common"
    )


def require_loadable(version: str) -> None:
    """Refuse, with `InputError`, a release that is not known, and one that nothing can be exported
    for, saying why."""
    refused = _release_entry(version).get("refused")
    if refused:
        raise InputError(
            f"--runtime {version}: nothing is exported for it: {refused}. Ship runtime 1.2 or "
            "later, or use --backend xnnpack"
        )


def needs_older_forms(version: str | None) -> bool:
    """Whether programs for a release are written in older operators; None, any, is the newest.
    `InputError` as `require_release`."""
    return version is not None and _release_entry(version).get("older_forms", False)


def _release_entry(version: str) -> dict[str, Any]:
    require_release(version)
    return _entry_of(release_line(version))


def _entry_of(line: str) -> dict[str, Any]:
    entries = load_toml("runtimes.toml")["release"]
    return next(entry for entry in entries if entry["version"] == line)


@cache
def registered_operators() -> dict[str, RegisteredOperator]:
    """Every operator that some release registers, by its name with its overload."""
    entries = load_toml("runtimes.toml")["operators"]
    return {entry["name"]: RegisteredOperator(**entry) for entry in entries}


def shaders_of(kind: str, runtime: str) -> list[Shaders]:
    """The shaders that a release has of operators of this kind; empty if nobody looked."""
    return [
        Shaders(**as_fields(entry))
        for entry in load_toml("runtimes.toml")["shaders"]
        if entry["operator"] == kind and _spans(runtime, entry["since"], entry.get("until"))
    ]


def quantizes_activations(rows: str, dot_products: bool, runtime: str) -> bool:
    """Whether a release quantizes the activations of 8da4w linears in calls of `rows` ("1" or
    "2.."), on a GPU with or without integer dot products."""
    return any(
        path["quantizes"]
        for path in load_toml("runtimes.toml")["paths"]
        if path["operator"] == DYNAMIC_LINEAR
        and (path["rows"], path["dot_products"]) == (rows, dot_products)
        and _spans(runtime, path["since"], path.get("until"))
    )


def sums_in_half(runtime: str) -> bool:
    """Whether a release sums prompts of weight-only linears of float16 in it."""
    return any(
        limit["id"] == "q4gsw-half-accumulation"
        and _spans(runtime, limit["since"], limit.get("until"))
        for limit in load_toml("runtimes.toml")["limit"]
    )


def _spans(runtime: str, since: str, until: str | None) -> bool:
    """Whether a release is one of those from `since` to `until` (None: to the newest)."""
    line = release(runtime)
    return release(since) <= line and (until is None or line <= release(until))


def unknown_operators(graph: VulkanGraph, runtime: str) -> list[str]:
    """What of `graph` that release does not know, in a phrase each; empty if it knows all.

    An operator that it does not register, or that it reads with another number of arguments.
    """
    found: dict[str, None] = {}
    for operator in graph.operators:
        known = registered_operators().get(operator.name)
        if known is None:
            found[f"{operator.name}, which no release registers"] = None
        elif not known.is_in(runtime):
            span = f"from {known.since}" + (f" to {known.until}" if known.until else " on")
            found[f"{operator.name}, which is registered {span}"] = None
        elif known.arguments_in(runtime) not in (None, len(operator.args)):
            found[
                f"{operator.name} with {len(operator.args)} arguments, expected "
                f"{known.arguments_in(runtime)}"
            ] = None
    return list(found)
