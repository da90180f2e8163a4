"""Joins operators that one kernel computes, so that a step has fewer dispatches."""

from collections import Counter
from collections.abc import Iterator

from quatrain.program import Operator, VulkanGraph

# What takes the place of the operator with that id(), and the ids of others that go.
Fusion = tuple[int, list[Operator], set[int]]


def fuse(graph: VulkanGraph) -> list[Operator]:
    """The graph's operators, with two patterns as operators of ours:

    - sigmoid, mul, mul of a SwiGLU: `silu_mul` (x, gate, out);
    - a rotary embedding before attention that updates its caches: `rope_update` (the rotary
      embedding's arguments, v, k_cache, v_cache, start_pos, rotated q), and `custom_sdpa`.

    Only where nothing else reads the values in between.
    """
    reads = Counter(graph.outputs)
    for operator in graph.operators:
        reads.update(graph.inputs_of(operator))
    reader = {arg: op for op in graph.operators for arg in op.args[:-1] if reads[arg] == 1}
    replaced: dict[int, list[Operator]] = {}
    for place, operators, others in [*_gates(graph, reader), *_rotations(graph, reader)]:
        replaced |= {other: [] for other in others} | {place: operators}
    return [new for op in graph.operators for new in replaced.get(id(op), [op])]


def _gates(graph: VulkanGraph, reader: dict[int, Operator]) -> Iterator[Fusion]:
    for sigmoid in graph.operators:
        if sigmoid.kind != "aten.sigmoid" or len(sigmoid.args) != 2:
            continue
        x, gate = sigmoid.args
        silu = reader.get(gate)
        if silu is None or silu.kind != "aten.mul" or x not in silu.args[:-1]:
            continue
        product = reader.get(silu.out)
        if product is None or product.kind != "aten.mul":
            continue
        other = next((arg for arg in product.args[:-1] if arg != silu.out), None)
        if other is None or graph.tensor(other).shape != graph.tensor(x).shape:
            continue
        joined = Operator("silu_mul", (x, other, product.out), product.node_id)
        yield id(product), [joined], {id(sigmoid), id(silu)}


def _rotations(graph: VulkanGraph, reader: dict[int, Operator]) -> Iterator[Fusion]:
    for rotary in graph.operators:
        if not rotary.kind.startswith("et_vk.apply_rotary_emb"):
            continue
        rotated = graph.outputs_of(rotary)
        if len(rotated) != 2:
            continue
        q, k = rotated
        attention = reader.get(q)
        if (
            attention is None
            or attention.kind != "sdpa_with_kv_cache"
            or reader.get(k) is not attention
        ):
            continue
        args = attention.named_args
        if (args["q"], args["k"]) != (q, k):
            continue
        caches = (args["k_cache"], args["v_cache"])
        update = (*rotary.args[:-1], args["v"], *caches, args["start_pos"], q)
        rest = (args[name] for name in ("attn_mask", "dropout_p", "is_causal", "scale"))
        yield (
            id(attention),
            [
                Operator("rope_update", update, rotary.node_id),
                Operator(
                    "custom_sdpa",
                    (q, *caches, args["start_pos"], *rest, attention.out),
                    attention.node_id,
                ),
            ],
            {id(rotary)},
        )
