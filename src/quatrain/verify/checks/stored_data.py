"""The constants of a program by their bytes, wherever it stores them."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import torch

from quatrain.program import Plain, Program, VulkanGraph

_FLOATS = (np.float32, np.float16)


class StoredData:
    """What a program stores for its delegates, and beside them; of a Vulkan program, `graph`."""

    def __init__(self, program: Program, graph: VulkanGraph | None = None) -> None:
        if graph:
            views = [graph.fetch(constant) for constant in graph.constants]
        else:
            views = [program.named_bytes(key) for key in program.named_data]
        self._by_size: defaultdict[int, list[memoryview]] = defaultdict(list)
        for view in views:
            self._by_size[len(view)].append(view)
        self._digests: dict[int, set[str]] = {}
        self._found: set[str] = set()  # what was asked for and is stored
        self._offsets: list[int] = []
        self._beside = memoryview(b"")
        if (place := program.root.constant_segment) and place.offsets:
            self._offsets, self._beside = place.offsets, program.segment(place.segment_index)
        self._numbers = {np.float32(number) for number in _numbers(program, graph)}

    def for_delegates(self, data: bytes) -> bool:
        """Whether `data` is stored for a delegate."""
        size, digest = len(data), _digest(data)
        if size not in self._digests:
            self._digests[size] = {_digest(view) for view in self._by_size.get(size, ())}
        if digest not in self._digests[size]:
            return False
        self._found.add(digest)
        return True

    def has_size(self, size: int) -> bool:
        """Whether a delegate has a constant of so many bytes."""
        return size in self._by_size

    def has(self, data: bytes) -> bool:
        """Whether `data` is stored, for a delegate or beside them."""
        if self.for_delegates(data):
            return True
        # A slice past the end is shorter, and so another.
        beside = any(self._beside[at : at + len(data)] == data for at in self._offsets)
        if beside:
            self._found.add(_digest(data))
        return beside

    def has_number(self, number: float) -> bool:
        """Whether some operator is given `number`, to float32, or it is stored by itself."""
        return np.float32(number) in self._numbers or self.has(np.float32(number).tobytes())

    def of_length(self, count: int) -> Iterator[torch.Tensor]:
        """What is stored as so many numbers of 4 bytes or 2, float64 [count], and is nothing that
        was asked for and found."""
        for dtype in _FLOATS:
            size = count * np.dtype(dtype).itemsize
            beside = (self._beside[at : at + size] for at in self._offsets)
            views = [*self._by_size.get(size, ()), *(v for v in beside if len(v) == size)]
            for view in views:
                if _digest(view) in self._found:
                    continue
                yield torch.from_numpy(np.frombuffer(view, dtype).astype(np.float64))


def _numbers(program: Program, graph: VulkanGraph | None) -> Iterator[float]:
    for value in graph.values if graph else ():
        if isinstance(value, Plain) and value.kind == "double":
            yield value.value
    for plan in program.root.execution_plan:
        for value in plan.values:
            if isinstance(number := getattr(value.val, "double_val", None), float):
                yield number


def _digest(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()
