"""Counts what one call of a Vulkan program costs the phone: dispatches, and the bytes they access.

Counted from the graph, as ExecuTorch's runtime encodes a call. Source: the operators in
`backends/vulkan/runtime/graph/ops/impl` of ExecuTorch 1.5, each of whose `DynamicDispatchNode`s is
one dispatch, and `DispatchNode::encode`, which skips those without work. Prepacking when a program
is loaded (`et_vk.prepack`, packed weights) is not part of a call.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from quatrain.program.inspect.call_shapes import CallShapes
from quatrain.program.vulkan.graph import Operator, Tensor, VulkanGraph
from quatrain.program.vulkan.linear_kernels import CHOOSE_QPARAMS, DYNAMIC_LINEAR, INT4_LINEARS

PROMPT = 64  # tokens of the prompt that `inspect` counts
COPIES = "inputs and outputs"
_ON_THE_HOST = {
    "et_vk.prepack", "sym_size", "et_vk.select_as_symint", "add", "sub", "mul", "floordiv",
}  # fmt: skip
# Operator -> dispatches of a call; one for any other. SDPA.cpp: each cache's update, query times
# keys, softmax, times values.
_DISPATCHES = {"sdpa_with_kv_cache": 5, "custom_sdpa": 3, "et_vk.sdpa": 3}
_CACHES = {"sdpa_with_kv_cache": ("k_cache", "v_cache"), "custom_sdpa": ("k", "v")}
# The constants that an 8da4w linear of one row does not read.
_CHOSEN = ("input_scales", "input_zero_points", "weight_sums")
# Tables [rows, ...] from which a call reads a row for each of its tokens.
_TABLES = {
    "aten.embedding": ("weights",),
    "et_vk.embedding_q4gsw": ("weights", "weight_scales"),
    "et_vk.apply_rotary_emb_hf": ("freqs_cos", "freqs_sin"),
}
# Operators that read as many bytes as they write.
_PARTS = ("aten.slice_copy", "aten.select_copy", "aten.index_select")


@dataclass(frozen=True)
class OperatorCost:
    """The dispatches of all operators of one kind in a call, and the bytes they read and write."""

    dispatches: int
    bytes: int


@dataclass(frozen=True)
class CallCost:
    """One call of `tokens` tokens from position `start` on.

    Attributes:
        tokens: How many tokens it takes.
        start: The position of the first.
        dispatches: How often a shader is dispatched.
        bytes: What the dispatches read and write at least: constants and activations once for
            each operator, of tables and KV caches the rows that the call needs.
        operators: The same for each kind of operator, most dispatches first.
    """

    tokens: int
    start: int
    dispatches: int
    bytes: int
    operators: dict[str, OperatorCost]


def call_costs(graph: VulkanGraph) -> list[CallCost]:
    """The costs of a prompt (`PROMPT` tokens, or as many as fit) and of the decode step after it;
    of the single call if calls have one length."""
    longest = CallShapes(graph, 1).longest
    if longest is None:
        return [call_cost(graph, 1, 0)]
    prompt = max(1, min(PROMPT, longest - 1))
    return [call_cost(graph, prompt, 0), call_cost(graph, 1, prompt)]


def call_cost(graph: VulkanGraph, tokens: int, start: int) -> CallCost:
    """The cost of a call of `tokens` tokens, the first at position `start`."""
    shapes = CallShapes(graph, tokens, start)
    dispatches: Counter[str] = Counter()
    nbytes: Counter[str] = Counter()
    ends = [i for i in (*graph.inputs, *graph.outputs) if isinstance(graph.values[i], Tensor)]
    dispatches[COPIES] = len(ends)
    nbytes[COPIES] = sum(2 * shapes.nbytes(value_id) for value_id in ends)
    for operator in graph.operators:
        count = _dispatches(shapes, operator)
        if count:
            dispatches[operator.kind] += count
            nbytes[operator.kind] += _bytes(shapes, operator)
    operators = {
        kind: OperatorCost(count, nbytes[kind]) for kind, count in dispatches.most_common()
    }
    return CallCost(tokens, start, dispatches.total(), nbytes.total(), operators)


def _dispatches(shapes: CallShapes, operator: Operator) -> int:
    kind, graph = operator.kind, shapes.graph
    outputs = _tensors(graph, operator.args[-1:])
    if kind in _ON_THE_HOST or (outputs and not any(map(shapes.elements, outputs))):
        return 0
    if kind == CHOOSE_QPARAMS and not shapes.elements(operator.args[0]):
        return 0
    if kind.startswith("aten.split"):
        return len(outputs)
    if kind == "aten.cat":
        # Three inputs at a time, and after each batch where the next begins (Concat.cpp).
        return 2 * math.ceil(len(graph.flat(operator.args[:1])) / 3)
    if kind in INT4_LINEARS and shapes.rows(operator.args[0]) > 1:
        # Activations are quantized and packed first (QuantizedLinear.cpp), or transposed in half
        # precision (Q4gswLinear.cpp).
        half = graph.tensor(operator.args[0]).dtype == "float16"
        return 1 + (kind == DYNAMIC_LINEAR or half)
    return _DISPATCHES.get(kind, 1)


def _bytes(shapes: CallShapes, operator: Operator) -> int:
    """The bytes that `operator` reads and writes."""
    graph, names = shapes.graph, operator.named_args
    unread = () if operator.kind != DYNAMIC_LINEAR or shapes.rows(operator.args[0]) > 1 else _CHOSEN
    total = sum(map(shapes.nbytes, _tensors(graph, operator.args[-1:])))
    for name, argument in names.items():
        if name == "out" or name in unread:
            continue
        for value_id in _tensors(graph, (argument,)):
            if name in _CACHES.get(operator.kind, ()):
                total += _attended(shapes, value_id, names["q"])
            elif name in _TABLES.get(operator.kind, ()):
                total += _rows_of_table(shapes, operator, value_id)
            elif operator.kind in _PARTS:
                total += shapes.nbytes(operator.out)
            else:
                total += shapes.nbytes(value_id)
    return total


def _tensors(graph: VulkanGraph, ids: Iterable[int]) -> list[int]:
    """The tensors among values, lists flattened."""
    return [i for i in graph.flat(ids) if isinstance(graph.values[i], Tensor)]


def _attended(shapes: CallShapes, cache: int, query: int) -> int:
    """The bytes of the rows of a KV cache [1, context, heads, D] that a call's last token sees."""
    tensor = shapes.graph.tensor(cache)
    context = tensor.shape[1] if len(tensor.shape) > 1 else 1
    return tensor.nbytes * min(context, shapes.start + shapes.count(query)) // max(1, context)


def _rows_of_table(shapes: CallShapes, operator: Operator, table: int) -> int:
    """The bytes of the rows of a table [rows, ...] that `operator` looks up: one a token."""
    tensor = shapes.graph.tensor(table)
    rows = tensor.shape[0] if tensor.shape else 1
    tokens = max(map(shapes.count, shapes.graph.outputs_of(operator)), default=1)
    return tensor.nbytes * min(rows, tokens) // max(1, rows)
