"""Joins operators that one kernel computes, so that a step has fewer dispatches."""

from collections import Counter

from quatrain.program import Operator, ValueList, VulkanGraph


def fuse(graph: VulkanGraph) -> list[Operator]:
    """The graph's operators with sigmoid, mul, mul of a SwiGLU as one `silu_mul` (x, gate, out).

    Only where nothing else reads the values in between.
    """
    reads = Counter(graph.outputs)
    for operator in graph.operators:
        for arg in operator.args[:-1]:
            value = graph.values[arg]
            reads.update(value.items if isinstance(value, ValueList) else [arg])
    reader = {arg: op for op in graph.operators for arg in op.args[:-1] if reads[arg] == 1}

    replaced: dict[int, Operator] = {}
    dropped: set[int] = set()
    for sigmoid in graph.operators:
        if sigmoid.kind != "aten.sigmoid":
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
        dropped |= {id(sigmoid), id(silu)}
        replaced[id(product)] = Operator("silu_mul", (x, other, product.out), product.node_id)
    return [replaced.get(id(op), op) for op in graph.operators if id(op) not in dropped]
