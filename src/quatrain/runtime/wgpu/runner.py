"""Runs a Vulkan program on a GPU: one submit per step, reading back only the results."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quatrain.arithmetic import VULKAN_ARITHMETIC, Arithmetic
from quatrain.errors import InputError
from quatrain.program import Operator, Program, Tensor, open_program
from quatrain.program.int4_constants import check_int4_constants
from quatrain.runtime.calls.inputs import with_longest_call
from quatrain.runtime.calls.order import CallOrder, check_positions
from quatrain.runtime.calls.token_ids import check_token_ids, table_rows
from quatrain.runtime.defects import emulated_defect
from quatrain.runtime.one_delegate import (
    MethodInputs,
    method_outputs,
    require_only_delegate,
)
from quatrain.runtime.operators.errors import computing
from quatrain.runtime.unavailable import RuntimeUnavailable
from quatrain.runtime.wgpu.buffers import ResidentBuffers, assign_buffers
from quatrain.runtime.wgpu.device import Gpu, explained
from quatrain.runtime.wgpu.dispatches.dispatch import NUMPY
from quatrain.runtime.wgpu.fuse import fuse
from quatrain.runtime.wgpu.lower import lower, unsupported
from quatrain.runtime.wgpu.lowering import Lowered
from quatrain.runtime.wgpu.plan import Plan, make_plan, own_buffers, write_inputs
from quatrain.runtime.wgpu.profile import Timing, new_queries, read_timings
from quatrain.runtime.wgpu.symbols import SYMBOL_KINDS, symbol_of
from quatrain.runtime.wgpu.trace import read_operand, trace_operators

_PLANS_KEPT = 4  # input shapes whose memory and bind groups are kept at hand


class WgpuRunner:
    """Runs the Vulkan delegate of `program` on the GPU `adapter` (its name or index; the best).

    Constants are uploaded once, from the memory-mapped file; the KV caches stay on the GPU.
    `emulate` computes what a defect of `quatrain.runtime.defects` computes; `arithmetic` says how
    8da4w linears are computed. Raises `InputError`, before anything runs, for a program that does
    other work beside its delegate, and `RuntimeUnavailable` for an operator without a kernel or
    without a GPU.
    """

    def __init__(
        self,
        program: Program | Path | str,
        adapter: str | None = None,
        emulate: str | None = None,
        arithmetic: Arithmetic = VULKAN_ARITHMETIC,
    ) -> None:
        self._arithmetic = arithmetic
        self._defect = emulated_defect(emulate)
        if not isinstance(program, Program):
            program = open_program(program)
        self.graph = program.vulkan
        check_int4_constants(self.graph, str(program.path))
        self._order = CallOrder(program)
        self.rewinds = self._order.rewinds
        self._table_rows = table_rows(self.graph)
        require_only_delegate(program, "GPU runtime")
        self._output_id = method_outputs(program)[0]
        self._inputs = MethodInputs(program)
        self.metadata = with_longest_call(program.metadata, self._inputs.longest)
        missing = unsupported(self.graph)
        if missing:
            reason = f"the GPU runtime has no kernel for {', '.join(missing)}"
            raise RuntimeUnavailable(f"{program.path}: {reason}; use --device reference", reason)
        self.gpu = Gpu(adapter)
        self.device = f"gpu, {self.gpu.info.name}"
        self._operators = fuse(self.graph)
        self._symbol_operators = [op for op in self.graph.operators if op.kind in SYMBOL_KINDS]
        self._plans: dict[Any, Plan] = {}
        self._resident = ResidentBuffers(self.gpu, self.graph)

    def reset(self) -> None:
        """Put the KV caches back to zeros."""
        self._order.reset()
        self._resident.clear_caches()

    def forward(self, *inputs: torch.Tensor | np.ndarray) -> torch.Tensor:
        """One call of the program, such as tokens int64 [1, T] and position int64 [1].

        Returns its output in the type the program hands out: logits float32 [1, vocab] or [1, T,
        vocab]. Raises `InputError` if an input does not fit the program, or the program the GPU's
        limits, and `QuatrainError` if the GPU fails.
        """
        plan, given = self.plan(inputs)
        with self._order.call(inputs):
            self._submit(plan, given, read_output=True)
        flat = self.gpu.read(plan.staging, NUMPY[plan.output.dtype])[: plan.output.count]
        return torch.from_numpy(flat.reshape(plan.output.shape).copy()).to(self._output_dtype())

    def profile(self, *inputs: torch.Tensor | np.ndarray) -> list[Timing]:
        """One call as in `forward`, with the time of each dispatch by timestamp queries.

        Each dispatch gets a compute pass of its own, so the sum is more than a step takes.
        """
        if not self.gpu.info.timestamps:
            raise InputError(f"{self.gpu.info.name} has no timestamp queries to profile with")
        plan, given = self.plan(inputs)
        queries = new_queries(self.gpu, len(plan.lowered.dispatches))
        with self._order.call(inputs):
            self._submit(plan, given, queries=queries)
        return read_timings(self.gpu, queries, plan.lowered)

    def trace(
        self,
        wanted: Collection[int],
        observe: Callable[[int, torch.Tensor], torch.Tensor],
        *inputs: torch.Tensor,
    ) -> torch.Tensor:
        """As `forward`, but the value of each id in `wanted` becomes what `observe(id, value)`
        returns as soon as it is computed. Nothing is fused and no memory reused: it is slow."""
        with self._order.call(inputs):
            return self._trace(wanted, observe, self._given(inputs))

    def _trace(
        self,
        wanted: Collection[int],
        observe: Callable[[int, torch.Tensor], torch.Tensor],
        given: dict[int, np.ndarray],
    ) -> torch.Tensor:
        operators = self.graph.operators
        lowered = self._lower(operators, given, join=False)
        memory = own_buffers(self.gpu, lowered, given, self._output_id)
        memory |= self._resident.of(lowered.operands)
        memory |= assign_buffers(
            lowered.dispatches, set(memory), lambda n: self.gpu.buffer(n, "a result"), reuse=False
        )
        write_inputs(self.gpu, lowered, memory, given)
        steps = [
            (op, () if op.kind in SYMBOL_KINDS else self.graph.outputs_of(op)) for op in operators
        ]
        symbols = self.symbols(lowered, given)
        trace_operators(self.gpu, lowered, steps, memory, symbols, wanted, observe)
        output = lowered.operands[self._output_id]
        return read_operand(self.gpu, memory[output.key], output).to(self._output_dtype())

    def _submit(
        self,
        plan: Plan,
        given: dict[int, np.ndarray],
        read_output: bool = False,
        queries: Any = None,
    ) -> None:
        symbols = self.symbols(plan.lowered, given)
        write_inputs(self.gpu, plan.lowered, plan.memory, given)
        with explained("running a step"):
            encoder = self.gpu.device.create_command_encoder()
            plan.sequence.encode(encoder, symbols, queries)
            if read_output:
                source, staging = plan.memory[plan.output.key], plan.staging
                encoder.copy_buffer_to_buffer(source, 0, staging, 0, staging.size)
            self.gpu.device.queue.submit([encoder.finish()])

    def symbols(self, lowered: Lowered, given: dict[int, np.ndarray]) -> dict[int, int]:
        """The step's symbols; `InputError` if a position passes the program's context."""
        symbols = self._symbols(lowered, given)
        for symbol, length, limit in lowered.bounds:
            check_positions(symbols[symbol], symbols[symbol] + length, limit)
        return symbols

    def _symbols(self, lowered: Lowered, given: dict[int, np.ndarray]) -> dict[int, int]:
        symbols: dict[int, int] = {}
        operands = lowered.operands
        for op in self._symbol_operators:
            shape = lambda value_id: operands[value_id].shape  # noqa: E731
            with computing(op.name):
                symbols[op.out] = symbol_of(self.graph, op, symbols, shape, given)
        return symbols

    def plan(
        self, inputs: tuple[torch.Tensor | np.ndarray, ...]
    ) -> tuple[Plan, dict[int, np.ndarray]]:
        """The plan for the shapes of `inputs`, made if need be, and the inputs by value id."""
        given = self._given(inputs)
        key = tuple(array.shape for array in given.values())
        plan = self._plans.pop(key, None)
        if plan is None or not plan.lowered.holds(self._symbols(plan.lowered, given)):
            plan = self._make_plan(given)
        while len(self._plans) >= _PLANS_KEPT:
            self._plans.pop(next(iter(self._plans)))
        self._plans[key] = plan  # most recently used last
        return plan, given

    def _given(self, inputs: tuple[torch.Tensor | np.ndarray, ...]) -> dict[int, np.ndarray]:
        """The inputs by value id."""
        arrays = [x.numpy() if isinstance(x, torch.Tensor) else np.asarray(x) for x in inputs]
        given = dict(zip(self.graph.inputs, self._inputs.in_order(arrays), strict=True))
        for value_id, rows in self._table_rows.items():
            if value_id in given:
                check_token_ids(given[value_id], rows)
        return given

    def _lower(
        self, operators: list[Operator], given: dict[int, np.ndarray], join: bool = True
    ) -> Lowered:
        traits, fp16 = self.gpu.traits, self.gpu.info.fp16
        return lower(
            self.graph, operators, given, traits, fp16, self._arithmetic, self._defect, join
        )

    def _make_plan(self, given: dict[int, np.ndarray]) -> Plan:
        lowered = self._lower(self._operators, given)
        return make_plan(self.gpu, lowered, given, self._output_id, self._resident)

    def _output_dtype(self) -> torch.dtype:
        value = self.graph.values[self._output_id]
        assert isinstance(value, Tensor)
        name = value.dtype if value.staging_dtype == "unset" else value.staging_dtype
        return getattr(torch, name)
