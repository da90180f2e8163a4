"""Finds where each layer of a graph mixes tokens: attention, short convolution, delta rule or state
space."""

from collections.abc import Iterator
from dataclasses import dataclass

from quatrain.program.inspect.attentions import AttentionPlace, find_attentions
from quatrain.program.vulkan.def_use import DefUse
from quatrain.program.vulkan.graph import Operator, Plain, ValueList

_NORM = "et_vk.rms_norm"
_CLONE = ("aten.clone",)  # lays a value out otherwise, in a buffer or a texture


@dataclass(frozen=True)
class ConvolutionPlace:
    """Operator `operator`, by index, keeps the last inputs of a filter along the tokens, each of
    them `b` times `x`; `inputs` are those of the call behind those kept (value ids)."""

    operator: int
    b: int
    x: int
    inputs: int


@dataclass(frozen=True)
class DeltaRulePlace:
    """Operator `operator`, by index, keeps the `state` of a gated delta rule or of a state space,
    to which the call has `written` (value ids)."""

    operator: int
    state: int
    written: int


Place = AttentionPlace | ConvolutionPlace | DeltaRulePlace


def find_layers(def_use: DefUse) -> list[tuple[int, Place]]:
    """How the layers of a graph mix tokens, in their order, each with the layer's index: attention
    and a state space beside it are of one layer."""
    found: list[Place] = [
        *find_attentions(def_use), *_convolutions(def_use), *_delta_rules(def_use)
    ]  # fmt: skip
    layers: list[tuple[int, Place]] = []
    for place in sorted(found, key=lambda place: place.operator):
        layer, before = layers[-1] if layers else (-1, place)
        layers.append((layer + (not _is_beside(def_use, before, place)), place))
    return layers


def _is_beside(def_use: DefUse, one: Place, other: Place) -> bool:
    """Whether attention and a state space read the same norm of the stream."""
    both = {type(place): place for place in (one, other)}
    attention, space = both.get(AttentionPlace), both.get(DeltaRulePlace)
    if not isinstance(attention, AttentionPlace) or not isinstance(space, DeltaRulePlace):
        return False
    operators = def_use.graph.operators
    of_attention, of_space = (
        def_use.upstream([value], lambda index: operators[index].kind == _NORM)
        for value in (attention.q, space.state)
    )
    return bool(of_attention) and of_attention == of_space


def _written_anew(def_use: DefUse) -> Iterator[tuple[int, Operator]]:
    """The operators, with their indices, that write what is kept as a whole."""
    values = def_use.graph.values
    for index, operator in enumerate(def_use.graph.operators):
        if operator.kind == "update_cache" and isinstance(values[operator.args[2]], Plain):
            yield index, operator


def _delta_rules(def_use: DefUse) -> Iterator[DeltaRulePlace]:
    """As `quatrain.export.vulkan.chunked_delta_rule` writes them."""
    for index, operator in _written_anew(def_use):
        state = _producer(def_use, operator.args[0], "aten.unsqueeze_copy")
        added = _producer(def_use, state.args[0], "aten.add") if state else None
        product = _producer(def_use, added.args[1], "aten.bmm") if added else None
        if added and product:
            yield DeltaRulePlace(index, added.out, def_use.before(product.args[1], _CLONE))


def _convolutions(def_use: DefUse) -> Iterator[ConvolutionPlace]:
    """As `quatrain.export.operators.short_conv` writes them."""
    values = def_use.graph.values
    for index, operator in _written_anew(def_use):
        last = _producer(def_use, operator.args[0], "aten.slice_copy")
        joined = _producer(def_use, last.args[0], "aten.cat") if last else None
        parts = values[joined.args[0]] if joined else None
        if joined is None or not isinstance(parts, ValueList) or len(parts.items) != 2:
            continue
        # The keys of a window are not matrix products.
        added = _producer(def_use, parts.items[1], "aten.mul")
        if added:
            yield ConvolutionPlace(index, added.args[0], added.args[1], joined.out)


def _producer(def_use: DefUse, value: int, kind: str) -> Operator | None:
    """The operator that gives `value`, if it is of that kind."""
    index = def_use.producer.get(def_use.before(value, _CLONE))
    operator = None if index is None else def_use.graph.operators[index]
    return operator if operator is not None and operator.kind == kind else None
