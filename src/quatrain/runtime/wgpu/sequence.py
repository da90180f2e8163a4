"""A list of dispatches bound to memory, ready to be encoded again for every step."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from quatrain.runtime.wgpu.device import Gpu, explained
from quatrain.runtime.wgpu.dispatches.dispatch import Dispatch, Key, Params, Symbol

Symbols = Mapping[int, int]


class Sequence:
    """Dispatches with their pipelines, bind groups and params, all made once.

    `memory` maps each operand's key to a buffer. Params that hold a `Symbol` are filled in at
    each `encode`; all others are written once.
    """

    def __init__(self, gpu: Gpu, dispatches: list[Dispatch], memory: Mapping[Key, Any]):
        self.gpu = gpu
        self.dispatches = dispatches
        # Most dispatches of a step share their params, so they share a slot of the uniform.
        slots = {d.params: None for d in dispatches}
        self._params = list(slots)
        slot_of = {params: i for i, params in enumerate(self._params)}
        self._slot = [slot_of[d.params] for d in dispatches]
        stride = gpu.param_stride
        self._table = np.zeros((max(1, len(self._params)), stride // 4), np.uint32)
        self._uniform = gpu.uniform(self._table.nbytes)
        self._pipelines = [gpu.pipeline(d) for d in dispatches]
        self._groups = []
        with explained("binding the operators' memory"):
            for d, slot, pipeline in zip(dispatches, self._slot, self._pipelines, strict=True):
                operands = [(memory[o.key], 0, memory[o.key].size) for o in d.operands]
                bindings = [(self._uniform, slot * stride, 16), *operands]
                self._groups.append(gpu.bind_group(pipeline, bindings))

    def encode(self, encoder: Any, symbols: Symbols, queries: Any = None) -> None:
        """Record every dispatch in one compute pass, with `symbols` for the params' Symbols.

        With `queries`, a timestamp query set of twice as many entries as there are dispatches,
        each dispatch has a pass of its own and its begin and end are written to it.
        """
        resolved = [resolve(params, symbols) for params in self._params]
        self._table[: len(resolved), :4] = np.reshape(resolved, (-1, 4))  # there may be none
        self.gpu.device.queue.write_buffer(self._uniform, 0, self._table)
        work, last = None, None
        for i, dispatch in enumerate(self.dispatches):
            grid = dispatch.grid(resolved[self._slot[i]])
            if not all(grid) and queries is None:
                continue  # nothing to join, in a short context
            if work is None or queries is not None:
                work, last = encoder.begin_compute_pass(**_timed(queries, i)), None
            if self._pipelines[i] is not last:
                last = self._pipelines[i]
                work.set_pipeline(last)
            work.set_bind_group(0, self._groups[i])
            work.dispatch_workgroups(*grid)
            if queries is not None:
                work.end()
        if work is not None and queries is None:
            work.end()


def _timed(queries: Any, index: int) -> dict[str, Any]:
    if queries is None:
        return {}
    writes = {
        "query_set": queries,
        "beginning_of_pass_write_index": 2 * index,
        "end_of_pass_write_index": 2 * index + 1,
    }
    return {"timestamp_writes": writes}


def resolve(params: tuple[int | Symbol, ...], symbols: Symbols) -> Params:
    """`params` as four numbers."""
    a, b, c, d = (symbols[p.value_id] if isinstance(p, Symbol) else p for p in params)
    return a, b, c, d
