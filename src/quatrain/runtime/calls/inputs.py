"""Converts tokens and a position to the inputs of a program's method, for every exporter."""

from collections.abc import Sequence
from typing import Any

import torch

from quatrain.errors import InputError
from quatrain.program import Program
from quatrain.program.delegate_call import STATIC
from quatrain.program.methods import Method

_INT32 = 3  # of ExecuTorch's ScalarType


class CallInputs:
    """The inputs of `forward` of `program`, if they differ from tokens [1, T] and the position [1]
    of the first: optimum-executorch has a position for each token (`cache_position`), others have
    int32 tokens, or only calls of one length.

    Attributes:
        longest: The most tokens that the first input has room for; None if the program does not
            state it.
        only: The tokens of each call, if all calls have as many.

    Raises:
        InputError: There is no such method, or it has other inputs or outputs.
    """

    def __init__(self, program: Program) -> None:
        self._path = program.path
        method = _forward(program)
        self._inputs = method.inputs
        tokens, position = (list(one.sizes or ()) for one in self._inputs)
        self.longest: int | None = tokens[1] or None
        self.only = self.longest if self._inputs[0].shape_dynamism == STATIC else None
        self._for_each = bool(position) and position[0] > 1

    def given(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """`inputs`, tokens [1, T] (or embeddings [1, T, dim]) and position int64 [1], as the method
        takes them. Raises `InputError` for a T that it does not compute."""
        tokens, position = inputs
        length = tokens.shape[1]
        if self.only not in (None, length):
            raise InputError(
                f"{self._path}: computes calls of {self.only} tokens alone, and one of {length} "
                "is needed; export it with a length that varies, or of 1"
            )
        if self._for_each:
            position = position + torch.arange(length)
        return [
            value.to(torch.int32) if record.scalar_type == _INT32 else value
            for value, record in zip((tokens, position), self._inputs, strict=True)
        ]


def with_longest_call(metadata: dict[str, Any], longest: int | None) -> dict[str, Any]:
    """`metadata` with the length of calls limited to the method's room."""
    stated = metadata.get("get_max_seq_len") or metadata.get("get_max_context_len")
    shorter = longest is not None and (stated is None or longest < stated)
    return metadata | ({"get_max_seq_len": longest} if shorter else {})


def _forward(program: Program) -> Method:
    """The method of two inputs and one result; `InputError` if there is none."""
    method = program.methods.get("forward")
    if method is None:
        raise InputError(
            f"{program.path}: has no method forward (its methods are "
            f"{', '.join(sorted(program.methods))}), expected a text model of one; export it so"
        )
    inputs, outputs = (
        [list(one.sizes or ()) if one.table == "Tensor" else one.table for one in values]
        for values in (method.inputs, method.outputs)
    )
    tensors = not any(isinstance(one, str) for one in inputs)
    if len(inputs) != 2 or not tensors or len(inputs[0]) not in (2, 3):
        raise InputError(
            f"{program.path}: its method forward takes {len(inputs)} inputs, of shapes "
            f"{inputs}, expected two: tokens [1, T] and a position [1]; export it with a KV "
            "cache and these inputs"
        )
    if len(outputs) != 1:
        raise InputError(
            f"{program.path}: its method forward gives {len(outputs)} results, of shapes "
            f"{outputs}, expected one, the logits; export it with that alone"
        )
    return method
