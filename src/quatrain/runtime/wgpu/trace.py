"""Runs a program operator by operator on the GPU, and shows each value after it is computed."""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch

from quatrain.program import Operator
from quatrain.runtime.wgpu.device import Gpu, explained
from quatrain.runtime.wgpu.dispatches.dispatch import NUMPY, Operand
from quatrain.runtime.wgpu.lowering import Lowered
from quatrain.runtime.wgpu.sequence import Sequence


def trace_operators(
    gpu: Gpu,
    lowered: Lowered,
    operators: list[tuple[Operator, tuple[int, ...]]],
    memory: dict[Any, Any],
    symbols: dict[int, int],
    wanted: Collection[int],
    observe: Callable[[int, torch.Tensor], torch.Tensor],
) -> None:
    """Run each of `operators` (with the value ids it writes) on `memory`, in which no two operands
    share bytes; a value in `wanted` is replaced by the result of `observe`."""
    made: dict[int, list] = {}
    for origin, dispatch in zip(lowered.origins, lowered.dispatches, strict=True):
        made.setdefault(id(origin), []).append(dispatch)
    waiting: list = []
    for operator, outputs in operators:
        waiting += made.get(id(operator), [])
        for value_id in outputs:
            if value_id in wanted:
                _run(gpu, waiting, memory, symbols)
                waiting = []
                operand = lowered.operands[value_id]
                seen = observe(value_id, read_operand(gpu, memory[operand.key], operand))
                data = np.ascontiguousarray(seen.numpy(), NUMPY[operand.dtype])
                write_operand(gpu, memory[operand.key], data)
    _run(gpu, waiting, memory, symbols)


def read_operand(gpu: Gpu, buffer: Any, operand: Operand) -> torch.Tensor:
    """The present content of `buffer`, as the tensor `operand`."""
    staging = gpu.staging(operand.nbytes)
    encoder = gpu.device.create_command_encoder()
    encoder.copy_buffer_to_buffer(buffer, 0, staging, 0, operand.nbytes)
    gpu.device.queue.submit([encoder.finish()])
    flat = gpu.read(staging, NUMPY[operand.dtype])[: operand.count]
    return torch.from_numpy(flat.reshape(operand.shape).copy())


def write_operand(gpu: Gpu, buffer: Any, data: np.ndarray) -> None:
    """Write `data` to the start of `buffer`, padded to the four bytes that a write takes."""
    raw = data.reshape(-1).view(np.uint8)
    padded = raw if raw.size % 4 == 0 else np.pad(raw, (0, -raw.size % 4))
    gpu.device.queue.write_buffer(buffer, 0, padded)


def _run(gpu: Gpu, dispatches: list, memory: dict[Any, Any], symbols: dict[int, int]) -> None:
    if dispatches:
        encoder = gpu.device.create_command_encoder()
        Sequence(gpu, dispatches, memory).encode(encoder, symbols)
        with explained("running an operator"):
            gpu.device.queue.submit([encoder.finish()])
