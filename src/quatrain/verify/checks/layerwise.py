"""Compares a program with its eager backbone probe by probe, and names the first that is wrong.

Each probe starts from the backbone's own values, not the program's, so an error shows where it
is made and nowhere after. It is also what makes 8da4w comparable at all: there a rounding that
falls the other way changes an int8, and over the layers such changes grow to several percent
of the logits although every operator is right.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

import torch

from quatrain.backbone.model import Backbone
from quatrain.program import VulkanGraph
from quatrain.program.inspect.call_shapes import longest_call
from quatrain.runtime.runner import parts_of
from quatrain.verify.checks.probes import Probe, eager_values, find_probes

# Largest relative error of a probe, by the type in which the program keeps activations.
TOLERANCE = {"float32": 1e-4, "float16": 2e-2}


class TracingRunner(Protocol):
    """A runner that shows values as they are computed."""

    graph: VulkanGraph

    def trace(
        self,
        wanted: Collection[int],
        observe: Callable[[int, torch.Tensor], torch.Tensor],
        *inputs: torch.Tensor,
    ) -> torch.Tensor:
        """As `forward`, but each value in `wanted` is replaced by what `observe` makes of it."""
        ...


@dataclass(frozen=True)
class Deviation:
    """A probe that leaves tolerance: relative `error` at `probe` in `step` (prefill, decode)."""

    probe: str
    layer: int | None
    operator: str
    step: str
    error: float

    def __str__(self) -> str:
        layer = "outside the layers" if self.layer is None else f"layer {self.layer}"
        return (
            f"{self.operator}, {layer}, is the first to leave tolerance in {self.step}: "
            f"relative error {self.error:.2g} at {self.probe}"
        )


@dataclass(frozen=True)
class LayerwiseComparison:
    """How far a program follows its backbone: the worst error, and the first that is too large."""

    probes: int
    worst: float
    first: Deviation | None


def compare_layerwise(
    runner: TracingRunner, backbone: Backbone, tokens: list[int], tolerance: float
) -> LayerwiseComparison:
    """Compare all probes over the prefill of `tokens[:-1]`, in as many calls as the program needs,
    and the decode step of the last."""
    probes = find_probes(runner.graph)
    worst, first = 0.0, None
    backbone.reset()
    last = len(tokens) - 1
    calls = [("prefill", part) for part in parts_of(last, longest_call(runner.graph))]
    for step, part in [*calls, ("decode", slice(last, last + 1))]:
        inputs = torch.tensor([tokens[part]]), torch.tensor([part.start])
        values = eager_values(backbone, *inputs)
        errors = _compare(runner, probes, values, inputs)
        for probe, error in errors:
            worst = max(worst, error)
            if first is None and not error <= tolerance:
                first = Deviation(probe.name, probe.layer, probe.blame, step, error)
    return LayerwiseComparison(len(probes), worst, first)


def _compare(
    runner: TracingRunner,
    probes: list[Probe],
    values: dict[str, torch.Tensor],
    inputs: tuple[torch.Tensor, ...],
) -> list[tuple[Probe, float]]:
    """The relative error at each probe, in the order of computation."""
    probe_of = {probe.value_id: probe for probe in probes if probe.name in values}
    errors: list[tuple[Probe, float]] = []

    def observe(value_id: int, computed: torch.Tensor) -> torch.Tensor:
        probe = probe_of[value_id]
        expected = values[probe.name]
        if expected.numel() != computed.numel():
            expected = expected[:, -1]  # the program keeps the last token alone
        expected = expected.reshape(computed.shape)
        errors.append((probe, relative_error(computed, expected)))
        return expected.to(computed.dtype)

    runner.trace(set(probe_of), observe, *inputs)
    return errors


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """|found - expected| / |expected|, infinite where `found` is not finite."""
    found, expected = found.double(), expected.double()
    if not bool(torch.isfinite(found).all()):
        return float("inf")
    return float((found - expected).norm() / expected.norm().clamp(min=1e-30))
