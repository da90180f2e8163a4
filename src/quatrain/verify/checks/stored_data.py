"""Finds the constants of a program by their bytes, and whose each one is."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import torch

from quatrain.program import Plain, Program, VulkanGraph

_FLOATS = (np.float32, np.float16)
Key = str | int  # of named data, or the index of a Vulkan graph's constant


class StoredData:
    """What a program stores for its delegates, and beside them; of a Vulkan program, `graph`."""

    def __init__(self, program: Program, graph: VulkanGraph | None = None) -> None:
        self._views: dict[Key, memoryview] = {}
        if graph:
            self._views |= dict(enumerate(map(graph.fetch, graph.constants)))
        else:
            self._views |= {key: program.named_bytes(key) for key in program.named_data}
        self._by_size: defaultdict[int, list[Key]] = defaultdict(list)
        for key, view in self._views.items():
            self._by_size[len(view)].append(key)
        self._of_size: dict[int, set[str]] = {}  # the digests of each size that was asked for
        self._digests: dict[Key, str] = {}  # of the same
        self._names: defaultdict[str, set[str]] = defaultdict(set)  # of what was asked for, by it
        # Of what was asked for and begins at an offset: one may be the beginning of another.
        self._digests_beside: defaultdict[int, set[str]] = defaultdict(set)
        self._offsets: list[int] = []
        self._beside = memoryview(b"")
        if (place := program.root.constant_segment) and place.offsets:
            self._offsets, self._beside = place.offsets, program.segment(place.segment_index)
        self._numbers = {np.float32(number) for number in _numbers(program, graph)}

    def for_delegates(self, data: bytes, name: str) -> bool:
        """Whether `data`, that of `name`, is stored for a delegate."""
        size, digest = len(data), _digest(data)
        if size not in self._of_size:
            digests = {key: _digest(self._views[key]) for key in self._by_size.get(size, ())}
            self._digests |= digests
            self._of_size[size] = set(digests.values())
        if digest not in self._of_size[size]:
            return False
        self._names[digest].add(name)
        return True

    def has_size(self, size: int) -> bool:
        """Whether a delegate has a constant of so many bytes."""
        return size in self._by_size

    def has(self, data: bytes, name: str) -> bool:
        """Whether `data`, that of `name`, is stored, for a delegate or beside them."""
        digest, is_there = _digest(data), self.for_delegates(data, name)
        for at in self._offsets:
            if self._beside[at : at + len(data)] == data:  # past the end it is shorter
                self._names[digest].add(name)
                self._digests_beside[at].add(digest)
                is_there = True
        return is_there

    def names_of(self, key: Key) -> set[str]:
        """Those of what is stored for a delegate under `key`, as far as they were asked for."""
        return self._names.get(self._digests.get(key, ""), set())

    def names_beside(self, index: int) -> set[str]:
        """Those of constant `index` beside the delegates, as far as they were asked for."""
        at = self._offsets[index] if 0 < index < len(self._offsets) else -1
        return {name for one in self._digests_beside.get(at, ()) for name in self._names[one]}

    @property
    def known(self) -> set[str]:
        """Those of what was asked for and is stored, but where several are equal."""
        return {name for names in self._names.values() if len(names) == 1 for name in names if name}

    def has_number(self, number: float) -> bool:
        """Whether some operator is given `number`, to float32, or it is stored by itself."""
        return np.float32(number) in self._numbers or self.has(np.float32(number).tobytes(), "")

    def of_length(self, count: int) -> Iterator[torch.Tensor]:
        """What is stored as so many numbers of 4 bytes or 2, float64 [count], and is nothing that
        was asked for and found."""
        for dtype in _FLOATS:
            size = count * np.dtype(dtype).itemsize
            beside = (self._beside[at : at + size] for at in self._offsets)
            views = [self._views[key] for key in self._by_size.get(size, ())]
            for view in (*views, *(one for one in beside if len(one) == size)):
                if _digest(view) in self._names:
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
