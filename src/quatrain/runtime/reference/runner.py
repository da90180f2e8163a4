"""Converts a Vulkan graph to a list of steps, and runs them for each call of `forward`."""

import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch

from quatrain.arithmetic import VULKAN_ARITHMETIC, Arithmetic
from quatrain.errors import UNFIT, InputError
from quatrain.program import Operator, Plain, Program, Tensor, ValueList, open_program
from quatrain.program.int4_constants import check_int4_constants
from quatrain.program.plan.method_steps import CACHE_ARGUMENTS
from quatrain.program.vulkan.linear_kernels import INT4_LINEARS
from quatrain.runtime.calls.inputs import with_longest_call
from quatrain.runtime.calls.order import CallOrder
from quatrain.runtime.defects import (
    EmulatedDefect,
    emulated_defect,
    is_misreadable_embedding,
)
from quatrain.runtime.one_delegate import (
    MethodInputs,
    method_outputs,
    require_only_delegate,
)
from quatrain.runtime.operators.errors import cannot_compute, computing, require_room
from quatrain.runtime.reference.defective_kernels import embedding_of_first_in_four
from quatrain.runtime.reference.find_kernel import kernel_of, require_kernels
from quatrain.runtime.reference.int4_linears import Int4Linears
from quatrain.runtime.reference.kernels import embedding

Step = Callable[[list[Any]], None]


class ReferenceRunner:
    """Runs the Vulkan delegate of `program` on the CPU.

    `emulate` computes what a defect of `quatrain.runtime.defects` computes; `arithmetic` says how
    8da4w linears are computed. Every int4 weight is unpacked to float32 once (4 bytes per weight,
    shared where constants are). Raises, before anything runs, `InputError` if the program has no
    single Vulkan delegate or does other work outside it, and `RuntimeUnavailable` for an operator
    without a kernel here.
    """

    def __init__(
        self,
        program: Program | Path | str,
        emulate: str | None = None,
        arithmetic: Arithmetic = VULKAN_ARITHMETIC,
    ) -> None:
        self._defect = emulated_defect(emulate)
        if not isinstance(program, Program):
            program = open_program(program)
        self.device = "reference"
        self.path = program.path
        self.graph = program.vulkan
        check_int4_constants(self.graph, str(self.path))
        self._order = CallOrder(program)
        self.rewinds = self._order.rewinds
        require_only_delegate(program, "reference runtime")
        self._output_id = method_outputs(program)[0]
        self._inputs = MethodInputs(program)
        self.metadata = with_longest_call(program.metadata, self._inputs.longest)
        require_kernels(self.graph, str(program.path))
        self._linears = Int4Linears(self.graph, arithmetic, self._defect)
        self._values = [self._initial(i) for i in range(len(self.graph.values))]
        self._steps: list[Step] = []
        self._targets: list[tuple[int, ...]] = []  # what each step writes
        self._step_names: list[str] = []
        for index, operator in enumerate(self.graph.operators):
            self._add_step(index, operator)
        self._caches = {
            operator.args[argument]: self._values[operator.args[argument]]
            for operator in self.graph.operators
            for argument in CACHE_ARGUMENTS.get(operator.kind, ())
        }
        self.reset()

    def reset(self) -> None:
        """Put the KV caches back to what the program starts with (zeros)."""
        self._order.reset()
        for value_id, stored in self._caches.items():
            if not isinstance(stored, torch.Tensor):
                raise InputError(f"{self.path}: the KV cache, value {value_id}, is no constant")
            self._values[value_id] = stored.clone()

    def compute_as(self, arithmetic: Arithmetic, emulate: str | None = None) -> None:
        """Compute so from the next call on; the KV cache stays.

        Raises `InputError` if `emulate` is not the id of a defect.
        """
        self._defect = self._linears.defect = emulated_defect(emulate)
        self._linears.arithmetic = arithmetic

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """One call of the program, such as tokens int64 [1, T] and position int64 [1].

        Returns its output, in the type the program hands out: logits float32 [1, vocab] or [1, T,
        vocab], or hidden states [1, T, dim]. Raises `InputError` if an input has another rank or
        size than the program takes.
        """
        return self.trace((), lambda value_id, computed: computed, *inputs)

    @torch.inference_mode()
    def trace(
        self,
        wanted: Collection[int],
        observe: Callable[[int, torch.Tensor], torch.Tensor],
        *inputs: torch.Tensor,
    ) -> torch.Tensor:
        """As `forward`, but the value of each id in `wanted` becomes what `observe(id, value)`
        returns as soon as it is computed."""
        ordered = self._inputs.in_order(inputs)
        for value_id, given in zip(self.graph.inputs, ordered, strict=True):
            declared = self.graph.tensor(value_id)
            self._values[value_id] = self._checked_input(declared, torch.as_tensor(given))
        with self._order.call(inputs):
            self._compute(wanted, observe)
        return self._output(self._output_id)

    def _compute(
        self, wanted: Collection[int], observe: Callable[[int, torch.Tensor], torch.Tensor]
    ) -> None:
        values = self._values
        for step, targets, name in zip(self._steps, self._targets, self._step_names, strict=True):
            try:
                step(values)
            except UNFIT as error:
                raise cannot_compute(name, error) from error
            for target in targets:
                if target in wanted:
                    values[target] = observe(target, values[target])

    def _initial(self, value_id: int) -> Any:
        """What a value holds before the first step: a constant, or a fixed Python value."""
        value = self.graph.values[value_id]
        if isinstance(value, Plain):
            return value.value
        if isinstance(value, Tensor) and value.constant is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # the view is read-only, as it should
                return torch.from_numpy(self.graph.constant(value_id))
        return None

    def _add_step(self, index: int, operator: Operator) -> None:
        if operator.kind == "et_vk.prepack":
            self._values[operator.out] = self._values[operator.args[0]]
            return
        name = f"{self.path}: operator {index}, {operator.name},"
        with computing(name):
            self._steps.append(self._step(operator))
        self._targets.append(self.graph.outputs_of(operator))
        self._step_names.append(name)

    def _step(self, operator: Operator) -> Step:
        if operator.kind in INT4_LINEARS:
            kernel, arguments = self._linears.kernel(operator, self._values)
        elif is_misreadable_embedding(self.graph, operator):
            names = operator.named_args
            kernel, arguments = self._embedding, (names["weights"], names["indices"])
        else:
            kernel, arguments = kernel_of(operator, self.graph)
        read = self._reader(arguments)
        targets = self.graph.outputs_of(operator)
        several = isinstance(self.graph.values[operator.out], ValueList)
        declared = [self.graph.values[target] for target in targets]
        dtypes = [_torch_dtype(value) for value in declared]
        bounds = [
            value.shape
            if isinstance(value, Tensor) and operator.kind != "update_cache"  # gives nothing
            else None
            for value in declared
        ]

        def run(values: list[Any]) -> None:
            computed = kernel(*read(values))
            results = computed if several else (computed,)
            for target, dtype, bound, result in zip(targets, dtypes, bounds, results, strict=True):
                values[target] = result if dtype is None else result.to(dtype)
                if bound is not None:
                    require_room(values[target].shape, bound)

        return run

    def _reader(self, arguments: tuple[int, ...]) -> Callable[[list[Any]], list[Any]]:
        """A function that gathers an operator's arguments; lists of values item by item."""
        lists = {i: v.items for i in arguments if isinstance(v := self.graph.values[i], ValueList)}
        if not lists:
            return lambda values: [values[i] for i in arguments]
        return lambda values: [
            [values[item] for item in lists[i]] if i in lists else values[i] for i in arguments
        ]

    def _embedding(self, weights: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        misread = self._defect == EmulatedDefect.HEIGHT_PACKED_EMBEDDING
        return (embedding_of_first_in_four if misread else embedding)(weights, indices)

    def _checked_input(self, declared: Tensor, given: torch.Tensor) -> torch.Tensor:
        fits = given.dim() == len(declared.shape) and all(
            0 < size <= limit for size, limit in zip(given.shape, declared.shape, strict=True)
        )
        if not fits:
            raise InputError(
                f"an input of shape {list(given.shape)} does not fit the program, which takes at "
                f"most {list(declared.shape)}; use a shorter prompt, or feed it in parts"
            )
        dtype = _torch_dtype(declared)
        return given.to(dtype) if dtype is not None and dtype.is_floating_point else given

    def _output(self, value_id: int) -> Any:
        value = self.graph.values[value_id]
        result = self._values[value_id]
        if not isinstance(result, torch.Tensor):
            raise InputError(f"{self.path}: its output, value {value_id}, is never computed")
        if isinstance(value, Tensor) and value.staging_dtype != "unset":
            return result.to(getattr(torch, value.staging_dtype))
        return result


def _torch_dtype(value: Any) -> torch.dtype | None:
    known = isinstance(value, Tensor) and value.dtype != "unset"
    return getattr(torch, value.dtype) if known else None
