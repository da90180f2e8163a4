"""The values at which a program and its eager backbone can be compared."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import torch
from torch import nn

from quatrain.backbone.model import Backbone
from quatrain.program import VulkanGraph
from quatrain.program.inspect.adaptors import find_adaptors
from quatrain.program.inspect.attentions import AttentionPlace
from quatrain.program.inspect.layer_places import find_layers
from quatrain.program.inspect.linears import find_linears, result_id
from quatrain.program.inspect.role_names import CONV_NAMES, LATENT_NAMES, META_NAMES
from quatrain.program.vulkan.def_use import DefUse

_NORM = "et_vk.rms_norm"
# Role -> the norm that its linear reads; how the linear's input is computed from the previous
# probes.
_READS_NORM = {
    "q": "attention_norm", "q a": "attention_norm", "conv B": "attention_norm",
    "mamba xBC": "attention_norm",
    "gate": "ffn_norm", "output": "norm",
}  # fmt: skip
_READS = {
    "down": "gated activation", "o": "attention over the KV cache",
    "conv out": "gated short convolution", "mamba out": "gated state space",
}  # fmt: skip
_WATCHED = (
    "norm", ".attend", ".wq", ".wk", ".wv", ".wo", ".wq_a", ".wq_b", ".wkv_a", ".w1", ".w2", ".w3",
    "_proj", ".base",
)  # fmt: skip


@dataclass(frozen=True)
class Probe:
    """A value `value_id` of the graph that must equal what the backbone has at `name`.

    `name` is a module's path with .in or .out; `layer` is None outside the layers; `blame` says
    what computed it from the probes before.
    """

    value_id: int
    name: str
    layer: int | None
    blame: str


def find_probes(graph: VulkanGraph) -> list[Probe]:
    """The probes of `graph`, in the order in which they are computed.

    Values that the graph does not show (a norm left in parts, say) have no probe: an error in
    them appears at the next one.
    """
    def_use = DefUse(graph)
    probes = [*_linear_probes(graph, def_use), *_attention_probes(graph)]
    made = {probe.value_id: probe for probe in reversed(probes)}  # one probe per value
    return sorted(made.values(), key=lambda probe: def_use.producer.get(probe.value_id, -1))


def find_routers(graph: VulkanGraph) -> dict[int, str]:
    """What the routers of mixtures of experts in `graph` give, by value, and their modules."""
    def_use = DefUse(graph)
    routers = [linear for linear in find_linears(graph) if linear.role == "router"]
    return {result_id(def_use, linear.operator): linear.name for linear in routers}


def _linear_probes(graph: VulkanGraph, def_use: DefUse) -> Iterator[Probe]:
    linears = find_linears(graph)
    adaptors = find_adaptors(def_use, {linear.operator for linear in linears})
    with_adaptors = {one.base: one.result for one in adaptors}
    for linear in linears:
        operator = graph.operators[linear.operator]
        x, layer = operator.named_args["x"], linear.layer
        role = linear.role.removeprefix("expert ").removeprefix("shared ")
        if role in _READS_NORM:
            norm = _READS_NORM[role]
            name = norm if layer is None else f"layers.{layer}.{norm}"
            producers = def_use.upstream([x], lambda i: graph.operators[i].kind == _NORM)
            if len(producers) == 1:
                normed = graph.operators[producers[0]]
                first = layer == 0 and norm == "attention_norm"
                before = "embedding" if first else "residual addition"
                yield Probe(normed.named_args["x"], f"{name}.in", layer, before)
                yield Probe(normed.out, f"{name}.out", layer, f"RMS norm {norm}")
        if role in _READS:
            yield Probe(x, f"{linear.name}.in", layer, _READS[role])
        if role in (*META_NAMES, *CONV_NAMES, *LATENT_NAMES, "mamba out", "output"):
            alone = result_id(def_use, linear.operator)
            result = with_adaptors.get(linear.operator, alone)
            yield Probe(result, f"{linear.name}.out", layer, f"linear {linear.name}")


def _attention_probes(graph: VulkanGraph) -> Iterator[Probe]:
    for layer, found in find_layers(DefUse(graph)):
        if not isinstance(found, AttentionPlace):
            continue
        operator = graph.operators[found.operator]
        if operator.kind != "sdpa_with_kv_cache":
            continue
        for name in ("q", "k"):
            what = f"rotary embedding of {'queries' if name == 'q' else 'keys'}"
            path = f"layers.{layer}.attention.attend.{name}"
            yield Probe(operator.named_args[name], path, layer, what)


@torch.inference_mode()
def eager_values(
    backbone: Backbone,
    tokens: torch.Tensor,
    position: torch.Tensor,
    routed: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> dict[str, torch.Tensor]:
    """What the backbone has at each probe's name, for one call of it, in which the modules that are
    `routed` give that in place of what they compute."""
    values: dict[str, torch.Tensor] = {}

    def watch(path: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def record(_module: nn.Module, given: tuple, result: torch.Tensor) -> None:
            # Of a linear with a rotation before it, or an adaptor beside it, that one is inside:
            # it takes what is rotated, and is computed before what has it gives its result.
            name = path.removesuffix(".base")
            values.setdefault(f"{name}.in", given[0].clone())
            values[f"{name}.out"] = result.clone()
            if path.endswith(".attend"):
                values[f"{path}.q"], values[f"{path}.k"] = given[0].clone(), given[1].clone()

        return module.register_forward_hook(record)

    watched = [
        (path, module)
        for path, module in backbone.named_modules()
        if path.endswith(_WATCHED) or path == "output"
    ]
    handles = [watch(path, module) for path, module in watched]
    modules = dict(backbone.named_modules())
    for path, given in routed.items():
        answer = partial(_answer, given)
        handles.append(modules[path].register_forward_hook(answer))
    try:
        backbone(tokens, position)
    finally:
        for handle in handles:
            handle.remove()
    return values


def _answer(given: torch.Tensor, *_called: object) -> torch.Tensor:
    return given
