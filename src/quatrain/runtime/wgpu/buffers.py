"""Which buffer holds what: constants and KV caches for good, results while something reads them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from quatrain.program import VulkanGraph
from quatrain.runtime.wgpu.device import Gpu
from quatrain.runtime.wgpu.dispatches.dispatch import NUMPY, Dispatch, Key, Operand


class ResidentBuffers:
    """The constants and KV caches of `graph` on the GPU, each made on first use and kept."""

    def __init__(self, gpu: Gpu, graph: VulkanGraph):
        self.gpu = gpu
        self.graph = graph
        self._buffers: dict[Key, Any] = {}

    def of(self, operands: Mapping[int, Operand]) -> dict[Key, Any]:
        """The buffers, by key, of the constants and caches among `operands`, given by value id."""
        return {
            operand.key: self._buffer(value_id, operand)
            for value_id, operand in operands.items()
            if operand.key[0] in ("constant", "cache")
        }

    def clear_caches(self) -> None:
        """Put the KV caches back to zeros."""
        encoder = self.gpu.device.create_command_encoder()
        for key, buffer in self._buffers.items():
            if key[0] == "cache":
                encoder.clear_buffer(buffer)
        self.gpu.device.queue.submit([encoder.finish()])

    def _buffer(self, value_id: int, operand: Operand) -> Any:
        if operand.key not in self._buffers:
            if operand.key[0] == "cache":
                # Zeros, as the file stores them, without reading them.
                buffer = self.gpu.buffer(operand.nbytes, "the KV cache")
            else:
                data = np.asarray(self.graph.constant(value_id), NUMPY[operand.dtype])
                buffer = self.gpu.upload(data, f"a constant of shape {list(operand.shape)}")
            self._buffers[operand.key] = buffer
        return self._buffers[operand.key]


def assign_buffers(
    dispatches: list[Dispatch],
    kept: set[Key],
    allocate: Callable[[int], Any],
    reuse: bool = True,
) -> dict[Key, Any]:
    """Buffers for the operands of `dispatches` not in `kept`, reused once no later one reads them.

    `allocate` makes a buffer of a number of bytes. Operands whose uses overlap, those of one
    dispatch included, never share memory; without `reuse`, none do.
    """
    sizes, last_use = _uses(dispatches, kept)
    buffers: dict[Key, Any] = {}
    free: list[Any] = []
    for i, dispatch in enumerate(dispatches):
        keys = list(dict.fromkeys(o.key for o in dispatch.operands if o.key in sizes))
        for key in keys:
            if key not in buffers:
                buffers[key] = _take_free(free, sizes[key]) or allocate(sizes[key])
        free += [buffers[key] for key in keys if reuse and last_use[key] == i]
    return buffers


def _uses(dispatches: list[Dispatch], kept: set[Key]) -> tuple[dict[Key, int], dict[Key, int]]:
    """The most bytes that each operand not in `kept` needs, and the last dispatch that uses it."""
    sizes: dict[Key, int] = {}
    last_use: dict[Key, int] = {}
    for i, dispatch in enumerate(dispatches):
        for operand in dispatch.operands:
            if operand.key not in kept:
                sizes[operand.key] = max(operand.nbytes, sizes.get(operand.key, 0))
                last_use[operand.key] = i
    return sizes, last_use


def _take_free(free: list[Any], size: int) -> Any:
    """The tightest buffer of `free` that is not wastefully large, taken out; None without one."""
    fits = [buffer for buffer in free if size <= buffer.size <= 4 * size]
    best = min(fits, key=lambda buffer: buffer.size, default=None)
    if best is not None:
        free.remove(best)
    return best
