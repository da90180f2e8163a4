"""What each release of ExecuTorch's Vulkan runtime registers, from `runtimes.toml`."""

from dataclasses import dataclass, field
from functools import cache

from quatrain.errors import InputError
from quatrain.program import VulkanGraph
from quatrain.targets.catalogue import load_toml, release


@dataclass(frozen=True)
class RegisteredOperator:
    """An operator that releases register: from `since` to `until` (None: to the newest).

    `arguments`: how many it reads, outputs counted, None where that is unknown;
    `arguments_by_release` where it differs. `source`: file and line.
    """

    name: str
    since: str
    source: str
    until: str | None = None
    arguments: int | None = None
    arguments_by_release: dict[str, int] = field(default_factory=dict)

    def is_in(self, runtime: str) -> bool:
        """Whether that release registers it."""
        line = release(runtime)
        return release(self.since) <= line and (self.until is None or line <= release(self.until))

    def arguments_in(self, runtime: str) -> int | None:
        """How many arguments that release reads; None where that is unknown."""
        return self.arguments_by_release.get(release_line(runtime), self.arguments)


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
    """Refuse, with `InputError`, what is no version of ExecuTorch, and one that is not known."""
    if release_line(version) not in known_releases():
        known = ", ".join(known_releases())
        raise InputError(f"nothing is known of ExecuTorch runtime {version!r}; known are {known}")


@cache
def registered_operators() -> dict[str, RegisteredOperator]:
    """Every operator that some release registers, by its name with its overload."""
    entries = load_toml("runtimes.toml")["operators"]
    return {entry["name"]: RegisteredOperator(**entry) for entry in entries}


def unknown_operators(graph: VulkanGraph, runtime: str) -> list[str]:
    """What of `graph` that release does not know, in a phrase each; empty where it knows all.

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
                f"{operator.name} with {len(operator.args)} arguments, where "
                f"{known.arguments_in(runtime)} are read"
            ] = None
    return list(found)


def releases_that_know(graph: VulkanGraph) -> list[str]:
    """The releases that register all operators of `graph`."""
    return [version for version in known_releases() if not unknown_operators(graph, version)]
