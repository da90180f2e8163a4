"""Finds where each layer of a graph mixes tokens: attention, short convolution or delta rule."""

from collections.abc import Iterator
from dataclasses import dataclass

from quatrain.program.inspect.attentions import AttentionPlace, find_attentions
from quatrain.program.vulkan.def_use import DefUse
from quatrain.program.vulkan.graph import Operator, Plain, ValueList

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
    """Operator `operator`, by index, keeps the `state` of a gated delta rule, to which the call has
    `written` (value ids)."""

    operator: int
    state: int
    written: int


def find_layers(def_use: DefUse) -> list[AttentionPlace | ConvolutionPlace | DeltaRulePlace]:
    """The layers of a graph in their order, by how they mix tokens."""
    found = [*find_attentions(def_use), *_convolutions(def_use), *_delta_rules(def_use)]
    return sorted(found, key=lambda place: place.operator)


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
