"""The linears of a program's graph, by layer and role, found from the graph alone.

A program does not say which linear is which. The shape of the computation does: an attention
operator's query, key and value come from three linears, its result goes into a fourth; a gated
activation (`silu(gate(x)) * up(x)`) names the other three; the linear that reaches the
program's output without meeting another is the output layer.
"""

from dataclasses import dataclass

from quatrain.program.flow import Flow
from quatrain.program.graph import Operator, Tensor, VulkanGraph
from quatrain.program.operators import LINEAR_SCHEMES

_ATTENTION = {"sdpa_with_kv_cache", "custom_sdpa", "et_vk.sdpa"}
_ACTIVATIONS = {"aten.sigmoid", "aten.silu", "aten.gelu"}
_OTHER_LINEARS = {
    "aten.linear": "float",
    "aten.mm": "float",
    "aten.addmm": "float",
    "et_vk.linear_qcs4w": "weight-only",
    "aten._weight_int8pack_mm": "weight-only int8",
    "et_vk.linear_qcs8w": "weight-only int8",
    "et_vk.linear_q8ta_q8csw": "static int8",
}
# Role -> the parameter's name in Meta's checkpoints.
META_NAMES = {
    "q": "attention.wq", "k": "attention.wk", "v": "attention.wv", "o": "attention.wo",
    "gate": "feed_forward.w1", "up": "feed_forward.w3", "down": "feed_forward.w2",
}  # fmt: skip


@dataclass(frozen=True)
class Linear:
    """One linear: `operator` is its index in the graph, `name` as in Meta's checkpoints.

    `scheme`: 8da4w, weight-only, float, ...; `group_size` is None where scales are not grouped.
    `nbytes` counts its constants as they are stored; `weights_key` is its weight's key in the
    program's named data, equal for equal weights.
    """

    operator: int
    name: str
    layer: int | None
    role: str
    kernel: str
    scheme: str
    out_features: int
    in_features: int
    group_size: int | None
    has_bias: bool
    nbytes: int
    weights_key: str | None


def find_linears(graph: VulkanGraph) -> list[Linear]:
    """Every linear of `graph`, in the order in which they run."""
    flow = Flow(graph)
    indices = [i for i, op in enumerate(graph.operators) if _is_linear(graph, op)]
    places = _Places(flow, set(indices))
    return [_describe(graph, index, *places.of(index)) for index in indices]


def _is_linear(graph: VulkanGraph, operator: Operator) -> bool:
    """Whether `operator` is a matrix product with a constant weight."""
    if operator.kind in LINEAR_SCHEMES:
        return True
    if operator.kind not in _OTHER_LINEARS:
        return False
    weight = graph.values[_weight_id(operator)]
    constant = isinstance(weight, Tensor) and weight.constant is not None
    return constant or operator.kind not in ("aten.mm", "aten.addmm")


def _weight_id(operator: Operator) -> int:
    names = operator.named_args
    named = [names[name] for name in ("weights", "b") if name in names]
    return (*named, *operator.args[1:2], *operator.args)[0]


class _Places:
    """Layer and role of each linear, from where attention and gated activations stand."""

    def __init__(self, flow: Flow, linears: set[int]):
        self.flow = flow
        self.linears = linears
        self.found: dict[int, tuple[int | None, str]] = {}
        layer = -1
        for operator in flow.graph.operators:
            if operator.kind in _ATTENTION:
                layer += 1
                self._attention(operator, layer)
            elif operator.kind in _ACTIVATIONS and layer >= 0:
                self._feed_forward(operator, layer)
        self._output()

    def of(self, index: int) -> tuple[int | None, str]:
        return self.found.get(index, (None, "other"))

    def _name(self, indices: list[int], layer: int | None, role: str) -> None:
        """Give `indices` their role; one that serves several ('qkv' in one) gets both names."""
        for index in indices:
            if index not in self.found:
                self.found[index] = (layer, role)
            elif self.found[index][0] == layer and role not in self.found[index][1]:
                self.found[index] = (layer, self.found[index][1] + role)

    def _attention(self, operator: Operator, layer: int) -> None:
        names = operator.named_args
        for role in ("q", "k", "v"):
            self._name(self._sources(self._through_rotary(names[role])), layer, role)
        self._name(self._targets(operator.out), layer, "o")

    def _through_rotary(self, value: int) -> int:
        """The value that a rotary embedding turned into `value`; it handles q and k at once."""
        graph = self.flow.graph
        seen: set[int] = set()  # a damaged graph may run in a circle
        while (index := self.flow.producer.get(value)) is not None:
            operator = graph.operators[index]
            if operator.kind.startswith("et_vk.apply_rotary_emb"):
                return operator.args[graph.outputs_of(operator).index(value)]
            if index in self.linears or index in seen:
                break
            seen.add(index)
            value = operator.args[0]
        return value

    def _feed_forward(self, operator: Operator, layer: int) -> None:
        """`down(activation(gate) * up)`, where `activation` may be x * sigmoid(x)."""
        gate = self._sources(operator.args[0])
        product = self._multiplication(operator.out)
        if operator.kind == "aten.sigmoid" and product is not None:
            product = self._multiplication(self.flow.graph.operators[product].out)
        if product is None:
            return
        factors = self.flow.graph.operators[product].args[:2]
        up = [i for factor in factors for i in self._sources(factor) if i not in gate]
        self._name(gate, layer, "gate")
        self._name(up, layer, "up")
        self._name(self._targets(self.flow.graph.operators[product].out), layer, "down")

    def _multiplication(self, value: int) -> int | None:
        """The multiplication that `value` goes into, if that is its next computation."""
        graph = self.flow.graph
        found = self.flow.downstream(
            [value], lambda i: graph.operators[i].kind == "aten.mul" or i in self.linears
        )
        return found[0] if found and found[0] not in self.linears else None

    def _sources(self, value: int) -> list[int]:
        return self.flow.upstream([value], lambda index: index in self.linears)

    def _targets(self, value: int) -> list[int]:
        return self.flow.downstream([value], lambda index: index in self.linears)[:1]

    def _output(self) -> None:
        """The unnamed linears that reach the program's outputs without meeting another."""
        outputs = self.flow.graph.outputs
        last = self.flow.upstream(outputs, lambda index: index in self.linears)
        self._name([index for index in last if index not in self.found], None, "output")


def _describe(graph: VulkanGraph, index: int, layer: int | None, role: str) -> Linear:
    operator = graph.operators[index]
    names = operator.named_args
    weight = graph.tensor(_weight_id(operator))
    x = graph.tensor(names.get("x", names.get("a", operator.args[0])))
    out = graph.tensor(operator.out)
    bias = names.get("bias")
    constants = {
        value.constant: graph.constants[value.constant].nbytes
        for value in (graph.values[i] for i in operator.args)
        if isinstance(value, Tensor) and value.constant is not None
    }
    group = graph.integer(names["group_size"]) if "group_size" in names else None
    return Linear(
        operator=index,
        name=_linear_name(index, layer, role),
        layer=layer,
        role=role,
        kernel=operator.kind,
        scheme=LINEAR_SCHEMES.get(operator.kind) or _OTHER_LINEARS[operator.kind],
        out_features=out.shape[-1] if out.shape else weight.shape[0],
        in_features=x.shape[-1] if x.shape else 0,
        group_size=group,
        has_bias=bias is not None and isinstance(graph.values[bias], Tensor),
        nbytes=sum(constants.values()),
        weights_key=graph.constant_key(_weight_id(operator)),
    )


def _linear_name(index: int, layer: int | None, role: str) -> str:
    if role == "output":
        return "output"
    if layer is None:
        return f"operator_{index}"
    return f"layers.{layer}.{META_NAMES.get(role, role)}"
