"""Finds the role of each linear of a graph from the computation around it."""

from dataclasses import dataclass, replace

from quatrain.program.inspect.adaptors import find_adaptors
from quatrain.program.inspect.attentions import AttentionPlace
from quatrain.program.inspect.layer_places import ConvolutionPlace, DeltaRulePlace, find_layers
from quatrain.program.inspect.role_names import DELTA_NAMES, MAMBA_NAMES, ROLE_NAMES
from quatrain.program.vulkan.def_use import DefUse
from quatrain.program.vulkan.graph import Operator

_ACTIVATIONS = {"aten.sigmoid", "aten.silu", "aten.gelu", "aten.relu"}


@dataclass(frozen=True)
class LinearRole:
    """A linear's layer and role. `block`: where in a mixture of experts it is, such as
    experts.3 or shared_expert. `of_adaptor`: A or B, where it is of one beside the linear of that
    role."""

    layer: int | None = None
    role: str = "other"
    block: str = ""
    of_adaptor: str = ""

    @property
    def name(self) -> str | None:
        """The parameter's name in Meta's checkpoints; None if it has none."""
        adaptor = f".adaptor.{self.of_adaptor}" if self.of_adaptor else ""
        if self.layer is None:
            return None if self.role == "other" else self.role + adaptor
        role = self.role.rpartition(" ")[2] if self.block else self.role
        name = ROLE_NAMES.get(role, role)
        if self.block:
            name = name.replace("feed_forward", f"feed_forward.{self.block}")
        return f"layers.{self.layer}.{name}{adaptor}"


class LinearRoles:
    """The layer and role of each linear, from what mixes tokens and from gated activations."""

    def __init__(self, def_use: DefUse, linears: set[int]):
        self.def_use = def_use
        self.linears = linears
        self.adaptors = find_adaptors(def_use, linears)
        self._of_adaptors = {index for one in self.adaptors for index in (one.a, one.b)}
        self.found: dict[int, LinearRole] = {}
        # Layer -> its gated blocks, in order: the linears of each.
        self.blocks: dict[int, list[list[int]]] = {}
        begins: dict[int, int] = {}
        for layer, found in find_layers(def_use):
            begins[found.operator] = layer
            if isinstance(found, AttentionPlace):
                self._attention(found, layer)
            elif isinstance(found, ConvolutionPlace):
                self._convolution(found, layer)
            else:
                self._recurrence(found, layer)
        layer = -1
        for index, operator in enumerate(def_use.graph.operators):
            layer = begins.get(index, layer)
            if operator.kind in _ACTIVATIONS and layer >= 0:
                self._feed_forward(operator, layer)
        for layer, blocks in self.blocks.items():
            if len(blocks) > 1:
                self._experts(layer, blocks)
        self._output()
        for one in self.adaptors:
            for part, index in (("A", one.a), ("B", one.b)):
                self.found[index] = replace(self.of(one.base), of_adaptor=part)

    def of(self, index: int) -> LinearRole:
        """That of the linear at `index` of the graph's operators."""
        return self.found.get(index, LinearRole())

    def _name(self, indices: list[int], layer: int | None, role: str) -> None:
        """Give `indices` their role; one that serves several ('qkv' in one) gets both names."""
        for index in indices:
            known = self.of(index)
            if index not in self.found:
                self.found[index] = LinearRole(layer, role)
            elif known.layer == layer and role not in known.role:
                self.found[index] = replace(known, role=known.role + role)

    def _attention(self, found: AttentionPlace, layer: int) -> None:
        if found.k == found.v:
            self._latent(found, layer)
        else:
            for role, value in (("q", found.q), ("k", found.k), ("v", found.v)):
                self._name(self._sources(self._through_rotary(value)), layer, role)
        self._name(self._targets(found.out), layer, "o")

    def _latent(self, found: AttentionPlace, layer: int) -> None:
        """Queries and keys lie beside others that are not rotated. What queries are made of may be
        a latent vector, which comes from what that of keys comes from."""
        operators = self.def_use.graph.operators
        nearest = self.def_use.upstream(
            [found.k], lambda index: index in self.linears or self._rotates(index)
        )
        for index in filter(self._rotates, nearest):
            queries, keys = (self._sources(value) for value in operators[index].args[:2])
            self._name(keys, layer, "kv a")
            read = {operators[each].args[0] for each in keys}
            for each in queries:
                x = operators[each].args[0]
                self._name([each], layer, "q" if x in read else "q b")
                self._name([] if x in read else self._sources(x), layer, "q a")

    def _convolution(self, found: ConvolutionPlace, layer: int) -> None:
        """`out(C * filtered(B * x))`."""
        b, x, out = self._sources(found.b), self._sources(found.x), self._targets(found.inputs)
        self._name(b, layer, "conv B")
        self._name(x, layer, "conv x")
        self._name(out, layer, "conv out")
        for index in out:
            product = self._sources(self.def_use.graph.operators[index].args[0])
            self._name([i for i in product if i not in (*b, *x)], layer, "conv C")

    def _recurrence(self, found: DeltaRulePlace, layer: int) -> None:
        """Before the state of a delta rule three linears, of a state space two, in the order in
        which they are computed; behind what is written the last, and one that gates its input."""
        before = sorted(self._sources(found.state))
        *first, gate, last = DELTA_NAMES if len(before) > 2 else MAMBA_NAMES
        for index, role in zip(before, first, strict=False):
            self._name([index], layer, role)
        out = self._targets(found.written)
        self._name(out, layer, last)
        for index in out:
            gated = self._sources(self.def_use.graph.operators[index].args[0])
            self._name([i for i in gated if i not in before], layer, gate)

    def _through_rotary(self, value: int) -> int:
        """The value that a rotary embedding turned into `value`; it handles q and k at once."""
        graph = self.def_use.graph
        seen: set[int] = set()  # a damaged graph may run in a circle
        while (index := self.def_use.producer.get(value)) is not None:
            operator = graph.operators[index]
            if self._rotates(index):
                return operator.args[graph.outputs_of(operator).index(value)]
            if index in self.linears or index in seen:
                break
            seen.add(index)
            value = operator.args[0]
        return value

    def _rotates(self, index: int) -> bool:
        return self.def_use.graph.operators[index].kind.startswith("et_vk.apply_rotary_emb")

    def _feed_forward(self, operator: Operator, layer: int) -> None:
        """`down(activation(gate) * up)`, where `activation` may be x * sigmoid(x); without a gate
        `down(relu(gate) * relu(gate))`, or `down(activation(gate))`."""
        gate = self._sources(operator.args[0])
        if any(self.of(index).role in {**DELTA_NAMES, **MAMBA_NAMES} for index in gate):
            return
        product = self._multiplication(operator.out)
        if operator.kind == "aten.sigmoid" and product is not None:
            gated = self._targets(self.def_use.graph.operators[product].out)
            if gated and self.of(gated[0]).role == "o":
                self._name(gate, self.of(gated[0]).layer, "output gate")
                return
            if operator.args[0] not in self.def_use.graph.operators[product].args[:2]:
                return  # a score, such as a router's
            product = self._multiplication(self.def_use.graph.operators[product].out)
        given, factors = operator.out, ()
        if product is not None:
            given = self.def_use.graph.operators[product].out
            factors = self.def_use.graph.operators[product].args[:2]
        elif not self._activates_a_linear(operator):
            return
        up = [i for factor in factors for i in self._sources(factor) if i not in gate]
        self._name(gate, layer, "gate")
        self._name(up, layer, "up")
        down = self._down(given, layer)
        self._name(down, layer, "down")
        self.blocks.setdefault(layer, []).append([*gate, *up, *down])

    def _activates_a_linear(self, operator: Operator) -> bool:
        """Whether it is the activation of what a linear gives, and no score, as a sigmoid is."""
        of_linear = self.def_use.producer.get(operator.args[0]) in self.linears
        return of_linear and operator.kind in ("aten.gelu", "aten.relu")

    def _down(self, value: int, layer: int) -> list[int]:
        """The linear that takes `value`; on the way to it SpinQuant's rotation, whose linears
        take it in parts."""
        operators, tensor = self.def_use.graph.operators, self.def_use.graph.tensor
        width = tensor(value).shape[-1:]
        down = self._targets(value)
        seen: set[int] = set()  # a damaged graph may run in a circle
        while down and tensor(operators[down[0]].args[0]).shape[-1:] != width:
            if down[0] in seen:
                return []
            seen.add(down[0])
            self._name(down, layer, "rotation")
            down = self._targets(operators[down[0]].out)
        return down

    def _multiplication(self, value: int) -> int | None:
        """The multiplication that `value` goes into, if that is its next computation."""
        graph = self.def_use.graph
        found = self.def_use.downstream(
            [value], lambda i: graph.operators[i].kind == "aten.mul" or i in self.linears
        )
        return found[0] if found and found[0] not in self.linears else None

    def _sources(self, value: int) -> list[int]:
        found = self.def_use.upstream([value], lambda index: index in self.linears)
        return [index for index in found if index not in self._of_adaptors]

    def _targets(self, value: int) -> list[int]:
        return self.def_use.downstream([value], lambda index: index in self.linears)[:1]

    def _experts(self, layer: int, blocks: list[list[int]]) -> None:
        """Several gated blocks in one layer: experts where a router scores the block's input, or
        what it gives."""
        experts = 0
        for block in blocks:
            routers = self._routers(block, layer)
            self._name(routers, layer, "router")
            kind, name = (
                ("expert", f"experts.{experts}") if routers else ("shared", "shared_expert")
            )
            experts += bool(routers)
            for index in block:
                found = self.of(index)
                self.found[index] = LinearRole(layer, f"{kind} {found.role}", name)

    def _routers(self, block: list[int], layer: int) -> list[int]:
        """The linears without another role that a block's input, or what its result is multiplied
        by, comes from. Those of former layers are known as theirs."""
        operators = self.def_use.graph.operators
        weighing = self._multiplication(operators[block[-1]].out)
        values = [operators[block[0]].args[0]]
        if weighing is not None:  # by a score; or, of the sum of all, by a factor
            factors = operators[weighing].args[:2]
            values += [factor for factor in factors if block[-1] not in self._sources(factor)]
        sources = self.def_use.upstream(values, lambda index: index in self.linears)
        known = (LinearRole(), LinearRole(layer, "router"))
        return [index for index in sources if self.of(index) in known]

    def _output(self) -> None:
        """The unnamed linears that reach the program's outputs without meeting another."""
        outputs = self.def_use.graph.outputs
        last = [index for value in outputs for index in self._sources(value)]
        outputs = [index for index in last if index not in self.found]
        self._name(outputs, None, "output")
        for index in outputs:
            before = self._sources(self.def_use.graph.operators[index].args[0])
            unnamed = [index for index in before if index not in self.found]
            self._name(unnamed, None, "output_intermediate")
