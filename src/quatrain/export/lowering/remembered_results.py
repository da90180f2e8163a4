"""Caches the results of operators between passes of ExecuTorch.

Every pass runs each operator of a graph on tensors without values to infer shapes, although few
passes change any. It uses internals of ExecuTorch, in the way of
`quatrain.export.lowering.executorch_internals`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from quatrain.executorch_wheel import changed
from quatrain.export.lowering.compiler_shortcuts import replaced

try:
    from executorch.exir.dialects.edge._ops import EdgeOpOverload
    from executorch.exir.pass_base import _ExportPassBase
    from torch._subclasses.fake_tensor import FakeTensor
except ImportError as error:
    raise changed("executorch", "what its passes are made of", error, "to find it") from error


@contextmanager
def results_remembered() -> Iterator[None]:
    """Within, a pass takes what an operator gave of the very same arguments. Also a decorator."""
    with replaced("executorch", _ExportPassBase, "_fx", _with_cached_results):
        yield


class _Known(NamedTuple):
    """A result; its inputs are kept alive so that no other object gets the same id."""

    made_of: tuple[Any, ...]
    result: Any


class _Interpreter:
    """What runs an operator for a pass, if nobody has run it yet."""

    def __init__(self, runs: Any, mode: Any, known: dict[Any, _Known]) -> None:
        self.runs, self.mode, self.known = runs, mode, known

    def call_function(self, operator: Any, args: Any, kwargs: Any) -> Any:
        runs = operator._op if isinstance(operator, EdgeOpOverload) else operator
        made_of = (self.mode, runs, args, kwargs)
        key = _key(made_of)
        if key is not None and key in self.known:
            return self.known[key].result
        result = self.runs.call_function(operator, args, kwargs)
        if key is not None and _holds_no_values(result):
            self.known[key] = _Known(made_of, result)
        return result


def _with_cached_results(fx: Callable[..., Any]) -> Callable[..., Any]:
    known: dict[Any, _Known] = {}

    def quick(pass_: Any, kind: str, *call: Any) -> Any:
        if kind != "call_function":
            return fx(pass_, kind, *call)
        runs = pass_.interpreter
        pass_.interpreter = _Interpreter(runs, pass_.fake_tensor_mode, known)
        try:
            return fx(pass_, kind, *call)
        finally:
            pass_.interpreter = runs

    return quick


def _key(value: Any) -> Any:
    """What two equal arguments have in common: their values, or that they are the same object. None
    if a tensor with values is among them."""
    if isinstance(value, (tuple, list)):
        keys = tuple(_key(item) for item in value)
        return None if None in keys else keys
    if isinstance(value, dict):
        return _key(list(value.items()))
    if isinstance(value, (int, float, str)):
        return type(value), repr(value)
    if isinstance(value, torch.Tensor) and not isinstance(value, FakeTensor):
        return None
    return id(value)


def _holds_no_values(result: Any) -> bool:
    if isinstance(result, (tuple, list)):
        return all(_holds_no_values(item) for item in result)
    return isinstance(result, (FakeTensor, torch.SymInt))
