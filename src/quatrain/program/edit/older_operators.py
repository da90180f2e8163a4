"""Writes a graph in operators that ExecuTorch 1.2's Vulkan runtime registers.

RMS norm becomes mul, mean, add, rsqrt and two mul; rotary embedding in Hugging Face's layout
becomes slices of the tables, mul, neg, cat and add; an int4 embedding becomes one of floating
point; a bias of an int4 linear, which 1.2 reads and never adds, is added after it; and quantization
parameters are chosen in decode too, since leaving that out computes with integers. Sources:
`runtimes.toml`; `impl/BinaryOp.cpp`, `Reduce.cpp`, `Slice.cpp`, `Embedding.cpp` of ExecuTorch 1.2.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from quatrain.errors import InputError
from quatrain.program.container import Program
from quatrain.program.edit.prefill_qparams import choose_in_every_call
from quatrain.program.vulkan.graph import Operator, Plain, SymInt, ValueList, VulkanGraph
from quatrain.program.vulkan.linear_kernels import INT4_LINEARS
from quatrain.program.vulkan.memory import assign_memory
from quatrain.program.vulkan.packed_weights import embedding_rows

_TABLES = ("freqs_cos", "freqs_sin")
_LARGEST_TABLE = 1 << 30  # bytes of an int4 embedding written in floating point


def write_older_operators(program: Program) -> None:
    """Rewrite every graph of `program` in place.

    Raises `InputError` if an int4 embedding would take more than 1 GiB in floating point.
    """
    for graph in program.graphs:
        choose_in_every_call(graph)
        _Rewriting(program, graph).run()


class _Rewriting:
    """A graph that is being rewritten, operator by operator."""

    def __init__(self, program: Program, graph: VulkanGraph) -> None:
        self.program, self.graph = program, graph
        self.operators: list[Operator] = []
        self.made: list[int] = []
        self.shared: dict[tuple, int] = {}

    def run(self) -> None:
        forms: dict[str, Callable[[Operator], None]] = {
            "et_vk.rms_norm": self._rms_norm,
            "et_vk.apply_rotary_emb_hf": self._rotary,
            "et_vk.embedding_q4gsw": self._embedding,
            **dict.fromkeys(INT4_LINEARS, self._linear),
        }
        for operator in self.graph.operators:
            form = forms.get(operator.kind, self.operators.append)
            form(operator)
        self.graph.operators = self.operators
        assign_memory(self.graph, self.made)

    def _plain(self, kind: str, value: object = None) -> int:
        """A fixed value, one for all who need it."""
        key = (kind, tuple(value) if isinstance(value, list) else value)
        if key not in self.shared:
            self.shared[key] = self.graph.add(Plain(kind, value))
        return self.shared[key]

    def _tensor(self, like: int, *shape: int) -> int:
        """A tensor to compute, of the type and layout of another."""
        model = self.graph.tensor(like)
        made = replace(model, shape=shape or model.shape, constant=None, mem_obj_id=None)
        self.made.append(self.graph.add(made))
        return self.made[-1]

    def _call(self, name: str, *args: int) -> int:
        self.operators.append(Operator(name, args))
        return args[-1]

    def _prepacked(self, constant: int, like: int) -> int:
        """A constant as a tensor in the layout of `like`, packed once for all who read it.

        It keeps memory of its own, since it lives as long as the program."""
        if self.graph.stored(constant) is None:
            return constant  # the exporter packed it already
        key = ("prepack", constant)
        if key not in self.shared:
            model = self.graph.tensor(like)
            packed = replace(model, shape=self.graph.tensor(constant).shape, mem_obj_id=None)
            self.shared[key] = self.graph.add(packed)
            self._call("et_vk.prepack.default", constant, self.shared[key])
        return self.shared[key]

    def _rms_norm(self, operator: Operator) -> None:
        names = operator.named_args
        x, out = names["x"], operator.out
        shape = self.graph.tensor(x).shape
        mean = self._tensor(x, *shape[:-1], 1)
        square = self._call("aten.mul.Tensor", x, x, self._tensor(x))
        dims, keep = self._plain("int_list", [-1]), self._plain("bool", True)
        self._call("aten.mean.dim", square, dims, keep, self._plain("null"), mean)
        eps = self._prepacked(self._epsilon(names["eps"], x), x)
        sum_ = self._call("aten.add.Tensor", mean, eps, self._plain("int", 1), self._tensor(mean))
        scale = self._call("aten.rsqrt.default", sum_, self._tensor(mean))
        normed = self._call("aten.mul.Tensor", x, scale, self._tensor(x))
        self._call("aten.mul.Tensor", normed, self._prepacked(names["weight"], x), out)

    def _epsilon(self, eps: int, like: int) -> int:
        value = self.graph.plain(eps)
        if ("epsilon", value) not in self.shared:
            self.shared["epsilon", value] = self._constant(
                np.array([value], dtype=self.graph.tensor(like).dtype)
            )
        return self.shared["epsilon", value]

    def _constant(self, array: np.ndarray) -> int:
        stored = self.program.add_data(array.tobytes())
        return self.graph.add_constant(stored, str(array.dtype), array.shape)

    def _rotary(self, operator: Operator) -> None:
        names = operator.named_args
        outs = self.graph.outputs_of(operator)
        for x, out in zip((names["xq"], names["xk"]), outs, strict=True):
            cos, sin = (self._table(names[name], names["start_pos"], x) for name in _TABLES)
            self._rotate(x, cos, sin, out)

    def _table(self, table: int, start: int, x: int) -> int:
        """The rows of a table that belong to this call's tokens, [1, T, 1, rotary width]."""
        key = ("table", table, start)
        if key not in self.shared:
            tokens, width = self.graph.tensor(x).shape[1], self.graph.tensor(table).shape[-1]
            length = self._call_length()
            end = self._call("add", start, length, self.graph.add(SymInt()))
            rows = self._tensor(table, tokens, width)
            zero, one = self._plain("int", 0), self._plain("int", 1)
            self._call("aten.slice_copy.Tensor", table, zero, start, end, one, rows)
            size = self.graph.add(ValueList((one, length, one, self._plain("int", width))))
            view = self._tensor(table, 1, tokens, 1, width)
            self.shared[key] = self._call("aten.view_copy.default", rows, size, view)
        return self.shared[key]

    def _call_length(self) -> int:
        """The number of tokens of a call, which the graph reads off its input."""
        for operator in self.operators:
            if operator.kind == "sym_size":
                return operator.out
        raise InputError(f"{self.program.path}: reads no length of a call off its input")

    def _rotate(self, x: int, cos: int, sin: int, out: int) -> None:
        *before, channels = self.graph.tensor(x).shape
        width = self.graph.tensor(cos).shape[-1]
        half = width // 2
        turned = self._part(x, 0, width) if width < channels else x
        first, second = self._part(x, 0, half), self._part(x, half, width)
        minus = self._call("aten.neg.default", second, self._tensor(second))
        swapped = self._concatenated(minus, first, self._tensor(x, *before, width))
        left = self._call("aten.mul.Tensor", turned, cos, self._tensor(swapped))
        right = self._call("aten.mul.Tensor", swapped, sin, self._tensor(swapped))
        whole = out if width == channels else self._tensor(swapped)
        self._call("aten.add.Tensor", left, right, self._plain("int", 1), whole)
        if width < channels:
            self._concatenated(whole, self._part(x, width, channels), out)

    def _part(self, x: int, start: int, end: int) -> int:
        """Channels `start` to `end` of a tensor."""
        *before, _ = self.graph.tensor(x).shape
        last, one = self._plain("int", -1), self._plain("int", 1)
        bounds = self._plain("int", start), self._plain("int", end)
        part = self._tensor(x, *before, end - start)
        return self._call("aten.slice_copy.Tensor", x, last, *bounds, one, part)

    def _concatenated(self, a: int, b: int, out: int) -> int:
        pair = self.graph.add(ValueList((a, b)))
        return self._call("aten.cat.default", pair, self._plain("int", -1), out)

    def _embedding(self, operator: Operator) -> None:
        names, graph = operator.named_args, self.graph
        packed, scales = (graph.constant(names[name]) for name in ("weights", "weight_scales"))
        dtype = np.dtype(graph.tensor(operator.out).dtype)
        nbytes = packed.size * 2 * dtype.itemsize
        if nbytes > _LARGEST_TABLE:
            raise InputError(
                f"{self.program.path}: runtime 1.2 has no int4 embedding, and in floating point "
                f"this one is {nbytes} bytes; ship runtime 1.3 or later"
            )
        even_low = "is_linear_weight" in names and graph.plain(names["is_linear_weight"])
        table = self._constant(embedding_rows(packed, scales, bool(even_low)).astype(dtype))
        no = self._plain("bool", False)
        padding = self._plain("int", -1)
        name = "aten.embedding.default"
        self._call(name, table, names["indices"], padding, no, no, operator.out)

    def _linear(self, operator: Operator) -> None:
        bias, out = operator.named_args["bias"], operator.out
        if isinstance(self.graph.values[bias], Plain):
            self.operators.append(operator)
            return
        args = [self._plain("null") if arg == bias else arg for arg in operator.args[:-1]]
        sums = self._call(operator.name, *args, self._tensor(out))
        packed = self._prepacked(bias, out)
        self._call("aten.add.Tensor", sums, packed, self._plain("int", 1), out)
