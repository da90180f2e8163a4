"""Runs a program's method: operators by torch, XNNPACK's delegates by `UnroundedDelegate`."""

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from quatrain.errors import UNFIT, InputError
from quatrain.program import Program
from quatrain.program.methods import Instruction
from quatrain.program.plan.row_tables import indices_of, is_lookup, table_of
from quatrain.program.xnnpack_delegate import XNNPACK_BACKEND, read_xnnpack_graph
from quatrain.quiet import native_output_held_back, quiet
from quatrain.runtime.calls.inputs import CallInputs, with_longest_call
from quatrain.runtime.unrounded.delegate import UnroundedDelegate
from quatrain.runtime.unrounded.errors import NotComputed
from quatrain.runtime.unrounded.int8_attention import BEHIND, QUANTIZED_ATTENTION, attend
from quatrain.runtime.unrounded.memory import MethodValues, dtype_of

_VIEW = "executorch_prim.et_view.default"
# Copies to the type of their result; one that is not laid out in order is not computed here.
_COPIES = ("dim_order_ops._to_dim_order_copy.out", "dim_order_ops._clone_dim_order.out")
# Of two numbers each: `executorch_prim.add.Scalar` and the like.
_NUMBERS: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul,
    "floordiv": operator.floordiv, "mod": operator.mod,
}  # fmt: skip

_Step = Callable[[MethodValues], int | None]  # gives where to go on, if not behind it


class UnroundedRunner:
    """Computes the method `forward` of `program` in float32, a `Runner`.

    Attributes:
        has_halves: Whether its activations or constants are in float16.
        has_int4_groups: Whether an XNNPACK delegate has int4 weights in groups.
        has_exact_gelu: Whether one computes GELU, which XNNPACK does without approximation.

    Raises `NotComputed` if a part of it is of a kind that is not computed here.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._inputs = CallInputs(program)
        self.metadata = with_longest_call(program.metadata, self._inputs.longest)
        self._plan = next(p for p in program.root.execution_plan if p.name == "forward")
        with quiet():  # These register operators.
            import quatrain.linear.private_operators
            import quatrain.runtime.executorch_bindings  # noqa: F401
        self._delegates: dict[int, UnroundedDelegate] = {}
        with self._computing("its memory"):
            self._values = MethodValues(program, self._plan)
        self._steps: list[_Step] = []
        for place, each in enumerate(program.methods["forward"].instructions):
            with self._computing(f"instruction {place}"):
                self._steps.append(self._step(each))

    @property
    def has_halves(self) -> bool:
        return self._values.has_halves or any(d.has_halves for d in self._delegates.values())

    @property
    def has_int4_groups(self) -> bool:
        return any(delegate.has_int4_groups for delegate in self._delegates.values())

    @property
    def has_exact_gelu(self) -> bool:
        return any(delegate.has_gelu for delegate in self._delegates.values())

    def reset(self) -> None:
        """Forget the context."""
        self._values = MethodValues(self._program, self._plan)

    @torch.inference_mode()
    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor) -> torch.Tensor:
        """As a `Runner`. Raises `InputError` if an operator cannot take what it is given."""
        given = self._inputs.given((tokens, input_pos))
        with self._computing("what it is given"):
            for index, value in zip(self._plan.inputs, given, strict=True):
                self._values.write(index, value)
        place = 0
        while place < len(self._steps):
            with self._computing(f"instruction {place}"):
                goes_to = self._steps[place](self._values)
            place = place + 1 if goes_to is None else goes_to
        with self._computing("its result"):
            return self._values.read(self._plan.outputs[0]).clone()

    @contextmanager
    def _computing(self, what: str) -> Iterator[None]:
        """Where `what` does not fit, raises `InputError` that says so."""
        try:
            yield
        except UNFIT as error:
            reason = repr(error) if isinstance(error, LookupError) else error
            raise InputError(
                f"{self._program.path}: {what} cannot be computed: {reason}"
            ) from error

    def _step(self, each: Instruction) -> _Step:
        if each.kind == "delegate":
            return self._delegate_call(int(each.target), each.args)
        if each.kind == "free":
            return lambda values: None
        if each.kind == "jump":
            (condition,), goes_to = each.args, int(each.target)
            return lambda values: None if values.read(condition) else goes_to
        if each.kind == "move":
            return lambda values: values.move(*each.args)
        name = str(each.target)
        if name == _VIEW:
            x, shape, out = each.args[:3]
            return lambda values: values.view(out, x, values.read(shape))
        if name in _COPIES:
            x, out = each.args[0], each.args[-1]
            return lambda values: values.write(out, values.read(x).to(values.dtype(out)))
        if is_lookup(each):
            return self._lookup(each)
        namespace, _, rest = name.partition(".")
        if namespace == "executorch_prim":
            compute = _NUMBERS.get(rest.removesuffix(".Scalar"))
            if compute is None:
                raise NotComputed(f"the operator {name}")
            a, b, out = each.args
            return lambda values: values.write(out, compute(values.read(a), values.read(b)))
        return self._kernel_call(name, each.args)

    def _lookup(self, each: Instruction) -> _Step:
        try:
            table = table_of(self._program, self._values.records, each)
        except InputError as error:
            raise NotComputed(f"the operator {each.target}: {error}") from error
        indices, out = indices_of(each), each.args[-1]

        def run(values: MethodValues) -> None:
            rows = table.rows(values.read(indices).numpy())
            values.write(out, torch.from_numpy(rows).to(values.dtype(out)))

        return run

    def _delegate_call(self, index: int, args: Sequence[int]) -> _Step:
        delegate = self._program.delegates[index]
        if delegate.backend != XNNPACK_BACKEND:
            raise NotComputed(f"a delegate of {delegate.backend}")
        if index not in self._delegates:
            named, what = self._program.named_bytes, str(self._program.path)
            graph = read_xnnpack_graph(delegate, named, what)
            self._delegates[index] = UnroundedDelegate(graph)
        compute = self._delegates[index]

        def run(values: MethodValues) -> None:
            results = compute([values.read(each) for each in args])
            for place, result in zip(compute.results, results, strict=True):
                values.write(args[place], result)

        return run

    def _kernel_call(self, name: str, args: Sequence[int]) -> _Step:
        """A call of a torch operator with out arguments, or one that returns a number."""
        namespace, _, rest = name.partition(".")
        kind, _, overload = rest.partition(".")
        if namespace != "aten":  # ExecuTorch's kernels give results no other number of dimensions
            overload = overload.removesuffix("out")
        try:
            kernel = _torch_operator(namespace, kind, overload or "default")
        except AttributeError as error:
            raise NotComputed(f"the operator {name}") from error
        named = dict(zip((a.name for a in kernel._schema.arguments), args, strict=False))
        keywords = {a.name for a in kernel._schema.arguments if a.kwarg_only}
        results = {
            a.name: named[a.name]
            for a in kernel._schema.arguments
            if a.kwarg_only and a.alias_info is not None and a.alias_info.is_write
        }
        given = {key: index for key, index in named.items() if key not in results}
        if name == QUANTIZED_ATTENTION:
            return lambda values: values.write(args[-1], attend(values, named))
        behind = BEHIND.get(name)

        def run(values: MethodValues) -> None:
            read = {key: _argument(key, values.read(index)) for key, index in given.items()}
            into = {key: self._room(values, index) for key, index in results.items()}
            plain = [value for key, value in read.items() if key not in keywords]
            told = {key: value for key, value in read.items() if key in keywords}
            # ExecuTorch's kernels log each call, because torch gives them no allocator.
            with native_output_held_back() if namespace == "llama" else nullcontext():
                given_back = kernel(*plain, **told, **into)
            if not results and not kind.startswith("update_cache"):  # which gives nothing
                values.write(args[-1], given_back)
            for key, index in results.items():
                values.write(index, into[key])
            if behind is not None:
                behind(values, named | {"out": args[-1]})

        return run

    def _room(self, values: MethodValues, index: int) -> Any:
        """Empty tensors for an operator to write results to: it may give fewer elements than there
        is room for, and what it reads may lie there."""
        record = values.records[index]
        if record.table == "TensorList":
            return [self._room(values, i) for i in record.items]
        return torch.empty(0, dtype=values.dtype(index))


def _argument(name: str, value: Any) -> Any:
    if name == "dtype" and value is not None:
        return dtype_of(value)
    return value


def _torch_operator(namespace: str, kind: str, overload: str) -> Any:
    try:
        return getattr(getattr(getattr(torch.ops, namespace), kind), overload)
    except AttributeError:
        with quiet():  # The compiler registers more of them; its import takes seconds.
            import executorch.exir  # noqa: F401
        return getattr(getattr(getattr(torch.ops, namespace), kind), overload)
