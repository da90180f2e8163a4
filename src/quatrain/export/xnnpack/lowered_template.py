"""A module lowered to one XNNPACK delegate, which is copied with other constants in it."""

from dataclasses import dataclass
from typing import Any

import torch
from executorch.exir import to_edge_transform_and_lower
from torch import nn

from quatrain.executorch_wheel import changed
from quatrain.export.lowering.executorch_internals import (
    LoweredBackendModule,
    edge_config,
    lowered_parts,
)
from quatrain.export.xnnpack.copied_delegate import Tokens, copied_delegate
from quatrain.export.xnnpack.delegate_keys import constant_key, with_keys
from quatrain.export.xnnpack.linear_constants import Constants
from quatrain.quiet import quiet


@dataclass(frozen=True)
class LoweredTemplate:
    """The delegate, and the keys of its constants in order."""

    delegate: LoweredBackendModule
    keys: list[str]
    tokens: Tokens

    def with_constants(self, constants: Constants) -> LoweredBackendModule:
        """The same delegate with other constants, each under its hash."""
        stored = [(constant_key(data, prefix), data) for prefix, data in constants]
        keys = dict(zip(self.keys, (key for key, _ in stored), strict=True))
        blob = with_keys(self.delegate.processed_bytes, keys)
        return copied_delegate(self.delegate, blob, stored, self.tokens)


def lowered_template(
    part: nn.Module,
    examples: tuple[torch.Tensor, ...],
    partitioner: Any,
    constants: Constants,
    what: str,
) -> tuple[LoweredTemplate, torch.export.ExportedProgram]:
    """Lower `part`, which has these constants, all different, by ExecuTorch's `partitioner`. The
    template, which is cached, does not contain the program that calls the delegate. Tokens are in
    the second dimension of the first example and of each result, unless the part has
    `tokens_of_results`.

    Raises `QuatrainError`, naming `what`, if the result is not one delegate that holds the
    constants.
    """
    with torch.no_grad(), quiet():
        program = torch.export.export(part, examples)
        edge = to_edge_transform_and_lower(
            program, partitioner=[partitioner], compile_config=edge_config()
        ).exported_program()
    delegates = lowered_parts(edge.graph_module)
    calls: list[Any] = [node for node in edge.graph.nodes if node.op == "call_function"]
    results: Any = edge.graph.output_node().args[0]
    keys = [constant_key(data, prefix) for prefix, data in constants]
    # One delegate call and the getitems that take its results: nothing is left outside.
    whole = len(delegates) == 1 and len(calls) == 1 + len(results)
    if not whole or any(delegates[0].processed_bytes.count(key.encode()) != 1 for key in keys):
        found = f"{len(delegates)} delegates in {len(calls)} calls"
        expected = f"one delegate with its constants, in {1 + len(results)} calls"
        raise changed("executorch", f"XNNPACK's lowering of {what}", found, expected)
    arguments = [node.name for node in calls[0].args[1:]]
    first = arguments.index(next(iter(edge.graph_signature.user_inputs)))
    tokens = Tokens(first, getattr(part, "tokens_of_results", 1))
    return LoweredTemplate(delegates[0], keys, tokens), edge
