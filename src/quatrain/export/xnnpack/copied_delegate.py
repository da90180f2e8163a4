"""An XNNPACK delegate as a copy of another: private to ExecuTorch, as
`quatrain.export.lowering.executorch_internals` tells of the rest."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from quatrain.executorch_wheel import changed
from quatrain.export.lowering.executorch_internals import LoweredBackendModule, NamedDataStore


class Tokens(NamedTuple):
    """Where a delegate's tokens are: in the second dimension of its argument of number `argument`,
    and in the dimension `of_results` of each result of three or more."""

    argument: int
    of_results: int


def copied_delegate(
    template: LoweredBackendModule,
    blob: bytes,
    constants: list[tuple[str, bytes]],
    tokens: Tokens,
) -> LoweredBackendModule:
    """The delegate `template` with other bytes and constants: (key, bytes) each.

    Cheap to copy and to ask for the shapes of its results. Each of the compiler's passes asks that
    of every delegate, which ExecuTorch answers by unpacking and interpreting the graph it was
    lowered from: at 211 linears, minutes. It leans on the constructor of `LoweredBackendModule`,
    whose subclass torch would not take for one; on what the passes ask of its `original_module`;
    and on `NamedDataStore`, in which a delegate hands over its constants.
    """
    expected = "edge_program backend_id processed_bytes compile_specs named_data_store_output"
    found = " ".join(inspect.signature(LoweredBackendModule).parameters)
    if found != expected:
        raise changed("executorch", "LoweredBackendModule", f"({found})", f"({expected})")
    store = NamedDataStore()
    for key, data in constants:
        store.add_named_data(key, data, alignment=_XNNPACK_ALIGNMENT)
    program: Any = _Shapes(template.original_module, tokens)
    specs, stored = template.compile_specs, store.get_named_data_store_output()
    delegate = LoweredBackendModule(program, template.backend_id, blob, specs, stored)
    # Passes copy graphs with all in them; nothing in this one changes.
    delegate.__deepcopy__ = lambda memo: delegate
    return delegate


_XNNPACK_ALIGNMENT = 16  # bytes; XNNPACK's CONSTANT_TENSOR_ALIGNMENT in ExecuTorch


class _Shapes:
    """A placeholder for a delegate's program: its graph, and a module that gives its results'
    shapes.

    They are those of the graph, except for the number of tokens.
    """

    def __init__(self, program: torch.export.ExportedProgram, tokens: Tokens) -> None:
        self.graph, self.tokens = program.graph, tokens
        results: Any = program.graph.output_node().args[0]
        self.shapes = [tuple(result.meta["val"].shape) for result in results]

    def module(self) -> Callable[..., list[torch.Tensor]]:
        return lambda *given: [self._like(shape, given) for shape in self.shapes]

    def _like(self, shape: tuple[int, ...], given: tuple[torch.Tensor, ...]) -> torch.Tensor:
        x, its = given[self.tokens.argument], self.tokens.of_results
        if len(shape) >= 3:
            shape = (*shape[:its], x.shape[1], *shape[its + 1 :])
        return x.new_empty(shape)
