"""Runs a Vulkan program on a GPU: one submit per step, results alone read back."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import wgpu

from quatrain.errors import InputError
from quatrain.program import Operator, Program, Tensor, open_program
from quatrain.runtime.defects import check_defect
from quatrain.runtime.operator_errors import computing
from quatrain.runtime.wgpu.device import Gpu, explained
from quatrain.runtime.wgpu.dispatch import Operand
from quatrain.runtime.wgpu.fuse import fuse
from quatrain.runtime.wgpu.lower import Lowered, lower, unsupported
from quatrain.runtime.wgpu.pointwise import argmax
from quatrain.runtime.wgpu.sequence import Sequence, place
from quatrain.runtime.wgpu.symbols import SYMBOL_KINDS, symbol_of
from quatrain.runtime.wgpu.trace import read_operand, trace_operators, write_operand

_NUMPY = {"f32": np.float32, "f16": np.float16, "i32": np.int32}
_TOKEN = Operand(("token",), "u32", (1,))
_PLANS_KEPT = 4  # input shapes whose memory and bind groups are kept at hand


@dataclass
class Plan:
    """All that one set of input shapes needs, ready to be encoded."""

    lowered: Lowered
    memory: dict[Any, Any]
    graph: Sequence
    pick: Sequence
    output: Operand
    staging: Any
    token: Any


@dataclass(frozen=True)
class Timing:
    """One dispatch on the GPU: when it began, since the step did, and how long it took.

    `operator` is its name in the graph; `shape` that of its first operand.
    """

    operator: str
    kernel: str
    shape: tuple[int, ...]
    begin: int  # nanoseconds
    nanoseconds: int


class WgpuRunner:
    """Runs the Vulkan delegate of `program` on the GPU `adapter` (its name or index; the best).

    Constants are uploaded once, from the memory-mapped file; the KV caches stay on the GPU.
    `emulate` computes what a defect of `quatrain.runtime.defects` computes.
    Raises `InputError`, before anything runs, for an operator without a kernel, for a program
    that does other work beside its delegate, and for a GPU whose limits are too small.
    """

    metadata: dict[str, Any]

    def __init__(
        self,
        program: Program | Path | str,
        adapter: str | None = None,
        emulate: str | None = None,
    ) -> None:
        check_defect(emulate)
        if not isinstance(program, Program):
            program = open_program(program)
        self.metadata = program.metadata
        self.graph = program.vulkan
        _require_only_delegate(program)
        missing = unsupported(self.graph.operators)
        if missing:
            raise InputError(
                f"{program.path}: the GPU runtime has no kernel for {', '.join(missing)}; "
                "use --device reference"
            )
        self.gpu = Gpu(adapter)
        self._fault = emulate
        self._operators = fuse(self.graph)
        self._symbol_operators = [op for op in self.graph.operators if op.kind in SYMBOL_KINDS]
        self._plans: dict[Any, Plan] = {}
        self._kept: dict[Any, Any] = {}  # constants and caches

    def reset(self) -> None:
        """Put the KV caches back to zeros."""
        encoder = self.gpu.device.create_command_encoder()
        for key, buffer in self._kept.items():
            if key[0] == "cache":
                encoder.clear_buffer(buffer)
        self.gpu.device.queue.submit([encoder.finish()])

    def forward(self, *inputs: torch.Tensor | np.ndarray) -> torch.Tensor:
        """One call of the program, such as tokens int64 [1, T] and position int64 [1].

        Returns its output in the type the program hands out: logits float32 [1, vocab] or
        [1, T, vocab]. Raises `InputError` where an input does not fit the program, and
        `QuatrainError` where the GPU fails.
        """
        plan, given = self.plan(inputs)
        self._submit(plan, given, [(plan.output, plan.staging)])
        dtype = np.dtype(_NUMPY[plan.output.dtype]).name
        flat = self.gpu.read(plan.staging, dtype)[: plan.output.count]
        return torch.from_numpy(flat.reshape(plan.output.shape).copy()).to(self._output_dtype())

    def greedy_step(self, token: int, position: int) -> int:
        """The most likely token after `token` at `position`; four bytes are read back."""
        plan, given = self.plan((np.array([[token]]), np.array([position])))
        self._submit(plan, given, [(_TOKEN, plan.token)], pick=True)
        return int(self.gpu.read(plan.token, "uint32")[0])

    def profile(self, *inputs: torch.Tensor | np.ndarray) -> list[Timing]:
        """One call as in `forward`, with the time of each dispatch by timestamp queries.

        Each dispatch gets a compute pass of its own, so the sum is more than a step takes.
        """
        if not self.gpu.info.timestamps:
            raise InputError(f"{self.gpu.info.name} has no timestamp queries to profile with")
        plan, given = self.plan(inputs)
        count = 2 * len(plan.lowered.dispatches)
        queries = self.gpu.device.create_query_set(type="timestamp", count=count)
        self._submit(plan, given, [], queries=queries)
        usage = wgpu.BufferUsage.QUERY_RESOLVE | wgpu.BufferUsage.COPY_SRC
        resolved = self.gpu.device.create_buffer(size=8 * count, usage=usage)
        staging = self.gpu.staging(8 * count)
        encoder = self.gpu.device.create_command_encoder()
        encoder.resolve_query_set(queries, 0, count, resolved, 0)
        encoder.copy_buffer_to_buffer(resolved, 0, staging, 0, 8 * count)
        self.gpu.device.queue.submit([encoder.finish()])
        ticks = self.gpu.read(staging, "uint64").astype(np.int64).reshape(-1, 2)
        made = zip(plan.lowered.dispatches, plan.lowered.origins, ticks, strict=True)
        return [
            Timing(
                operator=origin.name,
                kernel=dispatch.kernel,
                shape=dispatch.operands[0].shape,
                begin=int(begin - ticks[0][0]),
                nanoseconds=int(end - begin),
            )
            for dispatch, origin, (begin, end) in made
        ]

    def trace(
        self,
        wanted: Collection[int],
        observe: Callable[[int, torch.Tensor], torch.Tensor],
        *inputs: torch.Tensor,
    ) -> torch.Tensor:
        """As `forward`, but the value of each id in `wanted` becomes what `observe(id, value)`
        returns as soon as it is computed. Nothing is fused and no memory reused: it is slow."""
        given = self._given(inputs)
        operators = self.graph.operators
        lowered = self._lower(operators, given, join=False)
        memory: dict[Any, Any] = {}
        for value_id, operand in lowered.operands.items():
            if operand.key[0] in ("constant", "cache"):
                memory[operand.key] = self._keep(value_id, operand)
        memory |= place(
            lowered.dispatches, set(memory), lambda n: self.gpu.buffer(n, "a result"), reuse=False
        )
        for value_id, array in given.items():
            operand = lowered.operands[value_id]
            if operand.key in memory:
                data = np.ascontiguousarray(array, _NUMPY[operand.dtype])
                write_operand(self.gpu, memory[operand.key], data)
        steps = [
            (op, () if op.kind in SYMBOL_KINDS else self.graph.outputs_of(op)) for op in operators
        ]
        symbols = self.symbols(lowered, given)
        trace_operators(self.gpu, lowered, steps, memory, symbols, wanted, observe)
        output = lowered.operands[self.graph.outputs[0]]
        return read_operand(self.gpu, memory[output.key], output).to(self._output_dtype())

    def _submit(
        self,
        plan: Plan,
        given: dict[int, np.ndarray],
        results: list[tuple[Operand, Any]],
        pick: bool = False,
        queries: Any = None,
    ) -> None:
        symbols = self.symbols(plan.lowered, given)
        queue = self.gpu.device.queue
        for value_id, array in given.items():
            operand = plan.lowered.operands[value_id]
            if operand.key in plan.memory:
                data = np.ascontiguousarray(array, _NUMPY[operand.dtype])
                write_operand(self.gpu, plan.memory[operand.key], data)
        with explained("running a step"):
            encoder = self.gpu.device.create_command_encoder()
            plan.graph.encode(encoder, symbols, queries)
            if pick:
                plan.pick.encode(encoder, symbols)
            for operand, staging in results:
                source = plan.memory[operand.key]
                encoder.copy_buffer_to_buffer(source, 0, staging, 0, staging.size)
            queue.submit([encoder.finish()])

    def symbols(self, lowered: Lowered, given: dict[int, np.ndarray]) -> dict[int, int]:
        """The step's symbols; `InputError` where a position passes the program's context."""
        symbols: dict[int, int] = {}
        operands = lowered.operands
        for op in self._symbol_operators:
            shape = lambda value_id: operands[value_id].shape  # noqa: E731
            with computing(op.name):
                symbols[op.out] = symbol_of(self.graph, op, symbols, shape, given)
        for symbol, length, limit in lowered.bounds:
            start = symbols[symbol]
            if start < 0 or start + length > limit:
                raise InputError(
                    f"positions {start} to {start + length - 1} do not fit the program's context "
                    f"of {limit} tokens; use a shorter prompt or export a longer --max-seq-len"
                )
        return symbols

    def plan(
        self, inputs: tuple[torch.Tensor | np.ndarray, ...]
    ) -> tuple[Plan, dict[int, np.ndarray]]:
        """The plan for the shapes of `inputs`, made if need be, and the inputs by value id."""
        given = self._given(inputs)
        key = tuple(array.shape for array in given.values())
        if key not in self._plans:
            while len(self._plans) >= _PLANS_KEPT:
                self._plans.pop(next(iter(self._plans)))
            self._plans[key] = self._make_plan(given)
        self._plans[key] = self._plans.pop(key)  # most recently used last
        return self._plans[key], given

    def _given(self, inputs: tuple[torch.Tensor | np.ndarray, ...]) -> dict[int, np.ndarray]:
        """The inputs by value id."""
        arrays = [x.numpy() if isinstance(x, torch.Tensor) else np.asarray(x) for x in inputs]
        if len(arrays) != len(self.graph.inputs):
            raise InputError(
                f"{len(arrays)} inputs given, the program takes {len(self.graph.inputs)}"
            )
        return dict(zip(self.graph.inputs, arrays, strict=True))

    def _lower(
        self, operators: list[Operator], given: dict[int, np.ndarray], join: bool = True
    ) -> Lowered:
        traits, fp16 = self.gpu.traits, self.gpu.info.fp16
        return lower(self.graph, operators, given, traits, fp16, self._fault, join)

    def _make_plan(self, given: dict[int, np.ndarray]) -> Plan:
        lowered = self._lower(self._operators, given)
        output = lowered.operands[self.graph.outputs[0]]
        # Inputs are written before a step and outputs read after it: they share with nothing.
        own = {lowered.operands[i].key: lowered.operands[i] for i in given} | {output.key: output}
        used = {operand.key for d in lowered.dispatches for operand in d.operands}
        memory = {
            key: self.gpu.buffer(operand.nbytes, "an input or output")
            for key, operand in own.items()
            if key in used
        }
        for value_id, operand in lowered.operands.items():
            if operand.key[0] in ("constant", "cache") and operand.key in used:
                memory[operand.key] = self._keep(value_id, operand)
        memory |= place(lowered.dispatches, set(memory), lambda n: self.gpu.buffer(n, "a result"))
        memory[_TOKEN.key] = self.gpu.buffer(16, "the token")
        last = _as_rows(output)
        return Plan(
            lowered=lowered,
            memory=memory,
            graph=Sequence(self.gpu, lowered.dispatches, memory),
            pick=Sequence(self.gpu, [argmax(last, last.shape[0] - 1, _TOKEN)], memory),
            output=output,
            staging=self.gpu.staging(output.nbytes),
            token=self.gpu.staging(16),
        )

    def _keep(self, value_id: int, operand: Operand) -> Any:
        """The buffer of a constant or a cache, made on first use."""
        if operand.key not in self._kept:
            if operand.key[0] == "cache":
                # Zeros, as the file stores them, without reading them.
                buffer = self.gpu.buffer(operand.nbytes, "the KV cache")
            else:
                data = self.graph.constant(value_id)
                if operand.dtype in _NUMPY:
                    data = np.asarray(data, _NUMPY[operand.dtype])
                buffer = self.gpu.upload(data, f"a constant of shape {list(operand.shape)}")
            self._kept[operand.key] = buffer
        return self._kept[operand.key]

    def _output_dtype(self) -> torch.dtype:
        value = self.graph.values[self.graph.outputs[0]]
        assert isinstance(value, Tensor)
        name = value.dtype if value.staging_dtype == "unset" else value.staging_dtype
        return getattr(torch, name)


def _as_rows(output: Operand) -> Operand:
    """Logits of any rank as rows [M, vocab]."""
    return Operand(output.key, output.dtype, (output.rows, output.shape[-1]))


def _require_only_delegate(program: Program) -> None:
    steps = [step for method in program.methods.values() for step in method.instructions]
    outside = sorted({str(step.target) for step in steps if step.kind == "kernel"})
    if outside or len(steps) != 1:
        found = ", ".join(outside) or f"{len(steps)} instructions"
        raise InputError(
            f"{program.path}: does work outside its Vulkan delegate ({found}); the GPU runtime "
            "runs programs that are one delegate call"
        )
