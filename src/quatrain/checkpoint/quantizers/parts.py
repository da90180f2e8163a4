"""The stored tensors of a quantized matrix, with checks."""

from collections.abc import Iterator, Mapping

import torch

from quatrain.checkpoint.files.lazy_tensors import StoredTensor
from quatrain.errors import InputError


class Parts(Mapping[str, StoredTensor]):
    """The stored tensors of the matrix `name`, by what their names end in behind that.

    What checks one raises `InputError`, naming the file or folder `source` and the tensor.
    """

    def __init__(self, tensors: Mapping[str, StoredTensor], name: str, source: str) -> None:
        self._tensors, self.name, self.source = tensors, name, source

    def __getitem__(self, part: str) -> StoredTensor:
        return self._tensors[part]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def called(self, part: str) -> str:
        """How an error about `part` begins."""
        return f"{self.source}: {self.name}.{part}"

    def matrix(self, part: str, dtype: torch.dtype, expected: str) -> tuple[int, int]:
        """The shape of `part`, which must be a matrix of `dtype` and not empty: what is said to be
        `expected`."""
        stored = self[part]
        if stored.dtype != dtype or len(stored.shape) != 2 or 0 in stored.shape:
            raise InputError(f"{self.called(part)} is {stored}, expected {expected}")
        return stored.shape[0], stored.shape[1]

    def words(self, part: str) -> tuple[int, int]:
        """The shape of `part`, which must be a matrix of int32."""
        expected = "an int32 matrix of packed numbers; quantize the original model"
        return self.matrix(part, torch.int32, expected)

    def expect_shape(
        self,
        part: str,
        shape: tuple[int, ...],
        floating: bool = False,
        of: StoredTensor | None = None,
    ) -> None:
        """Refuse `part`, or what was made `of` it, unless it has `shape`, and is `floating` where
        it must be."""
        stored = self[part] if of is None else of
        if tuple(stored.shape) != shape or (floating and not stored.dtype.is_floating_point):
            raise InputError(
                f"{self.called(part)} is {stored}, expected {list(shape)}"
                f"{' of floating point' if floating else ''}; the file is damaged, or its "
                "quantization_config is another model's"
            )
