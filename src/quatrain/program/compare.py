"""What differs between two programs, by what they are and by linear."""

from dataclasses import asdict, dataclass
from typing import Any

from quatrain.program.linears import Linear
from quatrain.program.report import Report


@dataclass(frozen=True)
class Difference:
    """One thing that differs; `first` and `second` say what each program has."""

    what: str
    first: str
    second: str


@dataclass(frozen=True)
class Comparison:
    """Everything that differs between two programs; empty lists where nothing does."""

    summary: list[Difference]
    operators: list[Difference]
    bytes_by_kind: list[Difference]
    linears: list[Difference]
    equal_weights: int
    compared_weights: int

    def as_dict(self) -> dict[str, Any]:
        """The comparison as plain data, ready for JSON."""
        return asdict(self)

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        found = [*self.summary, *self.operators, *self.bytes_by_kind, *self.linears]
        return not found and self.equal_weights == self.compared_weights


def compare(first: Report, second: Report) -> Comparison:
    """The differences between two reports; linears are matched by name."""
    summary = {
        "bytes": (first.nbytes, second.nbytes),
        "backends": tuple([d.backend for d in r.delegates] for r in (first, second)),
        "outside the delegate": (first.outside, second.outside),
        "inputs": (first.inputs, second.inputs),
        "outputs": (first.outputs, second.outputs),
        "activation dtype": (first.activation_dtype, second.activation_dtype),
        "context length": (first.context_length, second.context_length),
        "dynamic shapes": (first.dynamic_shapes, second.dynamic_shapes),
        "layers": (first.layers, second.layers),
        "embedding": (first.embedding, second.embedding),
        "linear schemes": (first.schemes, second.schemes),
    }
    for name in {**first.metadata, **second.metadata}:
        summary[name] = (first.metadata.get(name), second.metadata.get(name))
    one = {linear.name: linear for linear in first.linears}
    two = {linear.name: linear for linear in second.linears}
    both = [name for name in one if name in two]
    return Comparison(
        summary=[_difference(what, *pair) for what, pair in summary.items() if pair[0] != pair[1]],
        operators=_by_key(first.operators, second.operators),
        bytes_by_kind=_by_key(first.bytes_by_kind, second.bytes_by_kind),
        linears=[
            Difference(name, _text(one.get(name)), _text(two.get(name)))
            for name in {**one, **two}
            if _text(one.get(name)) != _text(two.get(name))
        ],
        equal_weights=sum(_same_weights(one[name], two[name]) for name in both),
        compared_weights=len(both),
    )


def _difference(what: str, first: Any, second: Any) -> Difference:
    return Difference(what, str(first), str(second))


def _by_key(first: dict[str, int], second: dict[str, int]) -> list[Difference]:
    return [
        _difference(key, first.get(key, 0), second.get(key, 0))
        for key in {**first, **second}
        if first.get(key, 0) != second.get(key, 0)
    ]


def _text(linear: Linear | None) -> str:
    if linear is None:
        return "absent"
    group = f", groups of {linear.group_size}" if linear.group_size else ""
    bias = ", bias" if linear.has_bias else ""
    shape = f"{linear.out_features}×{linear.in_features}"
    return f"{linear.scheme} {shape}{group}{bias}"


def _same_weights(first: Linear, second: Linear) -> bool:
    return first.weights_key is not None and first.weights_key == second.weights_key
