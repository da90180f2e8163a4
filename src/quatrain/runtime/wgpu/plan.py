"""What a call needs, made once for its input shapes: dispatches, buffers, bind groups."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from quatrain.runtime.wgpu.buffers import ResidentBuffers, assign_buffers
from quatrain.runtime.wgpu.device import Gpu
from quatrain.runtime.wgpu.dispatches.dispatch import NUMPY, Key, Operand
from quatrain.runtime.wgpu.lowering import Lowered
from quatrain.runtime.wgpu.sequence import Sequence
from quatrain.runtime.wgpu.trace import write_operand


@dataclass
class Plan:
    """All that one set of input shapes needs, ready to be encoded: `memory` holds the buffers by
    key, `staging` is where the output is read from."""

    lowered: Lowered
    memory: dict[Key, Any]
    sequence: Sequence
    output: Operand
    staging: Any


def make_plan(
    gpu: Gpu, lowered: Lowered, inputs: Iterable[int], output_id: int, resident: ResidentBuffers
) -> Plan:
    """The plan of `lowered`; `inputs` and `output_id` are the graph's, by value id."""
    operands = lowered.operands
    output = operands[output_id]
    needed = _used(lowered) | {output.key}
    memory = own_buffers(gpu, lowered, inputs, output_id)
    memory |= resident.of({i: operand for i, operand in operands.items() if operand.key in needed})
    memory |= assign_buffers(lowered.dispatches, set(memory), lambda n: gpu.buffer(n, "a result"))
    return Plan(
        lowered=lowered,
        memory=memory,
        sequence=Sequence(gpu, lowered.dispatches, memory),
        output=output,
        staging=gpu.staging(output.nbytes),
    )


def own_buffers(
    gpu: Gpu, lowered: Lowered, inputs: Iterable[int], output_id: int
) -> dict[Key, Any]:
    """Buffers, by key, of the inputs that something reads and of the output: inputs are written
    before a step and outputs read after it, so they share with nothing.

    An output may be an input, or a view of one, which no dispatch touches."""
    output = lowered.operands[output_id]
    operands = [*(lowered.operands[i] for i in inputs), output]
    needed = _used(lowered) | {output.key}
    return {
        operand.key: gpu.buffer(operand.nbytes, "an input or output")
        for operand in operands
        if operand.key in needed and operand.key[0] == "value"
    }


def _used(lowered: Lowered) -> set[Key]:
    return {operand.key for dispatch in lowered.dispatches for operand in dispatch.operands}


def write_inputs(
    gpu: Gpu, lowered: Lowered, memory: Mapping[Key, Any], given: Mapping[int, np.ndarray]
) -> None:
    """Write the inputs `given`, by value id, to the buffers of those that a dispatch reads."""
    for value_id, array in given.items():
        operand = lowered.operands[value_id]
        if operand.key in memory:
            data = np.ascontiguousarray(array, NUMPY[operand.dtype])
            write_operand(gpu, memory[operand.key], data)
