"""No kernel of either runtime ignores an argument of its operator."""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.programs import GraphMaker

from quatrain.errors import QuatrainError
from quatrain.program import VulkanGraph, open_program
from quatrain.program.vulkan.operator_schemas import ARGUMENTS, DEFAULTS
from quatrain.runtime.operators.arguments import ignored_arguments
from quatrain.runtime.reference import ReferenceRunner
from quatrain.runtime.reference.find_kernel import ALL_KERNELS as REFERENCE
from quatrain.runtime.wgpu.lower import unsupported
from quatrain.runtime.wgpu.operators.handlers import HANDLERS

FUSED = {"silu_mul", "rope_update"}  # operators of ours: see `quatrain.runtime.wgpu.fuse`
# Arguments that change nothing of what an operator computes, and why.
WITHOUT_EFFECT = {
    "non_blocking": "when a copy is made",
    "dim_order": "how a tensor lies in memory", "memory_format": "how a tensor lies in memory",
    "layout": "how a tensor lies in memory", "pin_memory": "how a tensor lies in memory",
    "device": "where a tensor lies, which the runtime decides",
    "half_to_float": "the graph declares the result's type",
    "padding_idx": "gradients", "scale_grad_by_freq": "gradients", "sparse": "gradients",
    "sparse_grad": "gradients",
    "seq_len": "what was traced",
    "weight_sums": "sums that integer arithmetic alone needs",
    "eps": "Vulkan's shader has its own smallest scale",
    "quant_min": "bounds of the given integers", "quant_max": "bounds of the given integers",
}  # fmt: skip
RUNTIMES: dict[str, dict[str, Callable[..., Any]]] = {"reference": REFERENCE, "gpu": HANDLERS}


def arguments_not_taken() -> Iterator[tuple[str, str, str]]:
    for runtime, kernels in RUNTIMES.items():
        for kind in sorted(kernels.keys() - FUSED):
            parameters = inspect.signature(kernels[kind]).parameters
            for name in ARGUMENTS[kind][:-1]:
                if name not in parameters:
                    yield runtime, kind, name


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_kernels_name_arguments_of_their_operator(runtime: str) -> None:
    """A misspelled parameter would never be given; one more, *args or a default, hides others."""
    for kind, kernel in RUNTIMES[runtime].items():
        if kind in FUSED:
            continue
        parameters = list(inspect.signature(kernel).parameters.values())
        own = parameters[2:] if runtime == "gpu" else parameters
        assert all(p.kind == p.POSITIONAL_OR_KEYWORD for p in own), kind
        required = {p.name for p in own if p.default is p.empty}
        assert required <= set(ARGUMENTS[kind]), kind


@pytest.mark.parametrize(("runtime", "kind", "name"), arguments_not_taken())
def test_an_argument_that_a_kernel_does_not_take_is_refused(
    runtime: str, kind: str, name: str
) -> None:
    maker = GraphMaker()
    ids = [maker.plain("null", DEFAULTS.get(each)) for each in ARGUMENTS[kind]]
    maker.graph.values[ids[ARGUMENTS[kind].index(name)]] = maker.graph.values[
        maker.plain("string", "something else")
    ]
    maker.call(kind, *ids)
    ignored = ignored_arguments(maker.graph, maker.graph.operators, RUNTIMES[runtime])
    named = f"{name}=something else of {kind}" in ignored
    assert named != (name in WITHOUT_EFFECT)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_is_false_by_default_may_be_left_out(runtime: str) -> None:
    maker, kind = GraphMaker(), "torchao.choose_qparams_affine"
    maker.call(kind, *(maker.plain("null") for _ in ARGUMENTS[kind]))
    assert ignored_arguments(maker.graph, maker.graph.operators, RUNTIMES[runtime]) == []


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_names_and_defaults_are_those_of_the_schema(kind: str) -> None:
    schema = _schema(kind)
    if schema is None:
        pytest.skip("an operator of the graph, without a schema")
    stored = ARGUMENTS[kind][:-1]
    assert len(stored) == len(schema.arguments)
    for name, argument in zip(stored, schema.arguments, strict=True):
        if argument.has_default_value() and name in DEFAULTS:
            # Graphs store None for every dtype, whatever the schema's default is.
            default = None if name.endswith("dtype") else argument.default_value
            assert DEFAULTS[name] == default, name


def _schema(kind: str) -> Any:
    import executorch.backends.vulkan.custom_ops_lib
    import executorch.extension.llm.custom_ops.custom_ops  # noqa: F401
    import torchao.quantization.quant_primitives  # noqa: F401

    if "." not in kind:
        overload = getattr(getattr(torch.ops.llama, kind, None), "default", None)
        return overload and overload._schema
    namespace, name = kind.split(".")
    packet = getattr(getattr(torch.ops, namespace), name, None)
    if packet is None:
        return None
    wanted = len(ARGUMENTS[kind]) - 1
    schemas = [getattr(packet, overload)._schema for overload in packet.overloads()]
    fitting = [each for each in schemas if len(each.arguments) == wanted]
    return fitting[0] if fitting else schemas[0]


MODES = [None, "floor", "trunc"]


def division(folder: Path, mode: str | None, dtype: str = "float32") -> Path:
    maker = GraphMaker()
    a, b = maker.input(dtype, 9), maker.input(dtype, 9)
    out = maker.tensor(dtype, 9)
    chosen = maker.plain("null") if mode is None else maker.plain("string", mode)
    maker.call("aten.div.Tensor_mode", a, b, chosen, out)
    return maker.save(folder / "division.pte", [out])


def runners(path: Path) -> list[Any]:
    from quatrain.runtime.wgpu.adapters import list_adapters
    from quatrain.runtime.wgpu.runner import WgpuRunner

    return [ReferenceRunner(path), *([WgpuRunner(path)] if list_adapters() else [])]


@pytest.mark.parametrize("mode", MODES)
def test_divisions_round_as_torch_does(mode: str | None, tmp_path: Path) -> None:
    a = torch.tensor([7.0, -7, 7, -7, 6, 0.5, -0.5, 2.0**20 + 1, 1])
    b = torch.tensor([2.0, 2, -2, -2, 3, 3, 3, 1, 0])
    for runner in runners(division(tmp_path, mode)):
        assert runner.forward(a, b).equal(torch.div(a, b, rounding_mode=mode)), runner.device


@pytest.mark.parametrize("mode", ["floor", "trunc"])
def test_divisions_of_integers(mode: Any, tmp_path: Path) -> None:
    a = torch.tensor([7, -7, 7, -7, 9_999_999, -9_999_999, 0, 16_777_215, 3], dtype=torch.int32)
    b = torch.tensor([2, 2, -2, -2, 3, 7, 5, 4097, 3], dtype=torch.int32)
    for runner in runners(division(tmp_path, mode, "int32")):
        assert runner.forward(a, b).equal(torch.div(a, b, rounding_mode=mode)), runner.device


def test_an_ignored_argument_is_named_before_anything_runs(tmp_path: Path) -> None:
    """A call of more arguments than are known, and one of the attention's that none computes."""
    maker = GraphMaker()
    x, out = maker.input("float32", 2), maker.tensor("float32", 2)
    maker.call("et_vk.rms_norm.default", x, x, x, x, x, out)
    path = maker.save(tmp_path / "more.pte", [out])
    with pytest.raises(QuatrainError, match=r"5 arguments of et_vk\.rms_norm\.default"):
        ReferenceRunner(path)
    assert unsupported(_graph(path)) == ["5 arguments of et_vk.rms_norm.default"]


def _graph(path: Path) -> VulkanGraph:
    return open_program(path).vulkan
