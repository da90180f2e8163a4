"""Compares a program with its eager backbone probe by probe, and names the first that is wrong.

Each probe starts from the backbone's own values, not the program's, so an error shows where it
is made and nowhere after. It is also what makes 8da4w comparable at all: there a rounding that
falls the other way changes an int8, and over the layers such changes grow to several percent
of the logits although every operator is right.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch

from quatrain.backbone.layers.moe import MixtureOfExperts
from quatrain.backbone.model import Backbone
from quatrain.program import VulkanGraph
from quatrain.program.inspect.call_shapes import longest_call
from quatrain.runtime.runner import parts_of
from quatrain.verify.checks.probes import Probe, eager_values, find_probes, find_routers

# Largest relative error of a probe, by the type in which the program keeps activations.
TOLERANCE = {"float32": 1e-4, "float16": 2e-2}
# Logits of a router that is to pick experts: of the most likely, the least likely, and the rest, so
# far below that biases of experts, of sigmoids, may be 0.7 apart.
_MOST, _LEAST, _NOT_PICKED = 3.0, 1.0, -6.0

_Inputs = tuple[torch.Tensor, torch.Tensor]
_Routed = dict[int, tuple[str, torch.Tensor]]  # by value: the router, and what it is to give


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
    and the decode step of the last; and over calls in which routers send tokens to every expert."""
    probes = find_probes(runner.graph)
    worst, first = 0.0, None
    backbone.reset()
    for step, inputs, routed in _calls(runner.graph, backbone, tokens):
        values = eager_values(backbone, *inputs, dict(routed.values()))
        given = {value_id: given for value_id, (_, given) in routed.items()}
        errors = _compare(runner, probes, values, given, inputs)
        for probe, error in errors:
            worst = max(worst, error)
            if first is None and not error <= tolerance:
                first = Deviation(probe.name, probe.layer, probe.blame, step, error)
    return LayerwiseComparison(len(probes), worst, first)


def _calls(
    graph: VulkanGraph, backbone: Backbone, tokens: list[int]
) -> Iterator[tuple[str, _Inputs, _Routed]]:
    """The calls to compare, in words for people, and what routers give in each."""
    last, longest = len(tokens) - 1, longest_call(graph)
    for part in parts_of(last, longest):
        yield "prefill", _inputs(tokens, part), {}
    yield "decode", _inputs(tokens, slice(last, last + 1)), {}
    inputs = _inputs(tokens, next(parts_of(last, longest)))
    for routed in _routed(graph, backbone, inputs[0].shape[1]):
        backbone.reset()
        yield "a call to every expert", inputs, routed


def _routed(graph: VulkanGraph, backbone: Backbone, count: int) -> Iterator[_Routed]:
    """What routers are to give for `count` tokens, in as many calls as it takes until each expert
    is picked: no text may be routed to some."""
    modules = dict(backbone.named_modules())
    mixtures = {
        (value_id, name): mixture
        for value_id, name in find_routers(graph).items()
        if isinstance(mixture := modules.get(name.rpartition(".")[0]), MixtureOfExperts)
    }
    picks = [count * mixture.activated for mixture in mixtures.values()]
    experts = [len(mixture.experts) for mixture in mixtures.values()]
    calls = max((-(-e // p) for e, p in zip(experts, picks, strict=True)), default=0)
    for first in range(0, calls * count, count):
        yield {
            value_id: (name, router_logits(mixture, range(first, first + count)))
            for (value_id, name), mixture in mixtures.items()
        }


def router_logits(mixture: MixtureOfExperts, tokens: range) -> torch.Tensor:
    """Of a router [1, T, experts] that picks the next experts for each of `tokens`, and weighs no
    two of them alike; float16 holds them too."""
    count, picked = len(mixture.experts), mixture.activated
    logits = torch.full((1, len(tokens), count), _NOT_PICKED)
    likely = torch.linspace(_MOST, _LEAST, picked).mul(64).round() / 64
    for place, token in enumerate(tokens):
        next_ones = (token * picked + torch.arange(picked)) % count
        logits[0, place, next_ones] = likely
    return logits


def _inputs(tokens: list[int], part: slice) -> _Inputs:
    return torch.tensor([tokens[part]]), torch.tensor([part.start])


def _compare(
    runner: TracingRunner,
    probes: list[Probe],
    values: dict[str, torch.Tensor],
    given: dict[int, torch.Tensor],
    inputs: tuple[torch.Tensor, ...],
) -> list[tuple[Probe, float]]:
    """The relative error at each probe, in the order of computation; what is `given` is put in the
    place of what the program computes, as in the backbone."""
    probe_of = {
        probe.value_id: probe
        for probe in probes
        if probe.name in values and probe.value_id not in given
    }
    errors: list[tuple[Probe, float]] = []

    def observe(value_id: int, computed: torch.Tensor) -> torch.Tensor:
        probe = probe_of.get(value_id)
        expected = values[probe.name] if probe else given[value_id]
        if expected.numel() != computed.numel():
            expected = expected[:, -1]  # the program keeps the last token alone
        expected = expected.reshape(computed.shape)
        if probe:
            errors.append((probe, relative_error(computed, expected)))
        return expected.to(computed.dtype)

    runner.trace({*probe_of, *given}, observe, *inputs)
    return errors


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """|found - expected| / |expected|, infinite if `found` is not finite."""
    found, expected = found.double(), expected.double()
    if not bool(torch.isfinite(found).all()):
        return float("inf")
    return float((found - expected).norm() / expected.norm().clamp(min=1e-30))
