"""What is said of a program that has another number of Vulkan delegates than is needed."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from quatrain.errors import InputError
from quatrain.program.delegate import Delegate


def no_vulkan_delegate(path: Path, delegates: Sequence[Delegate]) -> InputError:
    """Of the program at `path`, none of whose `delegates` is Vulkan's."""
    backends = sorted({delegate.backend for delegate in delegates}) or ["none"]
    return InputError(
        f"{path}: has no Vulkan delegate (backends found: {', '.join(backends)}). Export it with "
        "--backend vulkan."
    )


def several_vulkan_delegates(path: Path, delegates: Sequence[Delegate]) -> InputError:
    """Of the program at `path`, of whose `delegates` several are Vulkan's."""
    counts = Counter(delegate.method for delegate in delegates if delegate.graph)
    of_each = ", ".join(f"{count} of {method}" for method, count in counts.items())
    return InputError(
        f"{path}: has {counts.total()} Vulkan delegates ({of_each}), expected one in all; make the "
        "program with quatrain export, which leaves one. Of such a program quatrain inspect, "
        "doctor and retarget take all delegates"
    )
