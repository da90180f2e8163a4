"""What a call needs, made once for its input shapes: dispatches, buffers, bind groups."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from quatrain.runtime.wgpu.buffers import ResidentBuffers, assign_buffers
from quatrain.runtime.wgpu.device import Gpu
from quatrain.runtime.wgpu.dispatch import NUMPY, Key, Operand
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
    # Inputs are written before a step and outputs read after it: they share with nothing.
    own = {operands[i].key: operands[i] for i in inputs} | {output.key: output}
    used = {operand.key for dispatch in lowered.dispatches for operand in dispatch.operands}
    memory = {
        key: gpu.buffer(operand.nbytes, "an input or output")
        for key, operand in own.items()
        if key in used
    }
    memory |= resident.of({i: operand for i, operand in operands.items() if operand.key in used})
    memory |= assign_buffers(lowered.dispatches, set(memory), lambda n: gpu.buffer(n, "a result"))
    return Plan(
        lowered=lowered,
        memory=memory,
        sequence=Sequence(gpu, lowered.dispatches, memory),
        output=output,
        staging=gpu.staging(output.nbytes),
    )


def write_inputs(
    gpu: Gpu, lowered: Lowered, memory: Mapping[Key, Any], given: Mapping[int, np.ndarray]
) -> None:
    """Write the inputs `given`, by value id, to the buffers of those that a dispatch reads."""
    for value_id, array in given.items():
        operand = lowered.operands[value_id]
        if operand.key in memory:
            data = np.ascontiguousarray(array, NUMPY[operand.dtype])
            write_operand(gpu, memory[operand.key], data)
