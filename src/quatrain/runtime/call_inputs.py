"""Tokens and a position as the method of a program takes them, whichever tool exported it."""

from collections.abc import Sequence

import torch

from quatrain.errors import InputError
from quatrain.program import Program

_INT32, _STATIC = 3, 0  # of ExecuTorch's ScalarType and TensorShapeDynamism


class CallInputs:
    """What `forward` of `program` takes in place of tokens [1, T] and the position [1] of the
    first: optimum-executorch has a position for each token (`cache_position`), others tokens of
    int32, or calls of one length alone.

    Attributes:
        longest: The tokens of the longest call that its first input has room for; None where that
            is not said.

    Raises:
        InputError: Where it takes more or fewer inputs.
    """

    def __init__(self, program: Program) -> None:
        self._path = program.path
        method = program.methods.get("forward")
        self._inputs = method.inputs if method else []
        shapes = [list(one.sizes or ()) for one in self._inputs if one.table == "Tensor"]
        if method and (len(shapes) != 2 or len(self._inputs) != 2):
            raise InputError(
                f"{self._path}: its method forward takes {len(self._inputs)} inputs, of shapes "
                f"{shapes}, expected two: tokens [1, T] and a position [1]; export it with a KV "
                "cache and these inputs"
            )
        sized = len(shapes) == 2 and len(shapes[0]) > 1
        self.longest: int | None = shapes[0][1] if sized else None
        self._only = self.longest if sized and self._inputs[0].shape_dynamism == _STATIC else None
        self._position_shape = shapes[1] if len(shapes) == 2 else [1]

    def given(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """`inputs`, tokens [1, T] (or embeddings [1, T, dim]) and position int64 [1], as the method
        takes them. Raises `InputError` for a T that it does not compute."""
        tokens, position = inputs
        length = tokens.shape[1]
        if self._only not in (None, length):
            raise InputError(
                f"{self._path}: computes calls of {self._only} tokens alone, and one of {length} "
                "is needed; export it with a length that varies, or of 1"
            )
        if self._position_shape and self._position_shape[0] > 1:
            position = position + torch.arange(length)
        return [
            value.to(torch.int32) if record.scalar_type == _INT32 else value
            for value, record in zip((tokens, position), self._inputs, strict=True)
        ]
