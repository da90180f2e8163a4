"""What is private to ExecuTorch, torch and torchao is as expected, or one message says that not;
what we change of theirs is put back."""

import ast
import importlib.util
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from executorch.backends.vulkan.op_registry import vulkan_supported_ops
from executorch.backends.vulkan.patterns import pattern_registry
from executorch.exir.dialects._ops import ops as exir_ops
from tests.support.paths import ROOT
from torch import nn

from quatrain import executorch_wheel
from quatrain.errors import QuatrainError
from quatrain.executorch_wheel import VERSIONS
from quatrain.export.lowering import executorch_internals as internals
from quatrain.export.xnnpack import copied_delegate
from quatrain.linear import private_operators

EXECUTORCH = rf"executorch \S+ is installed, .* written for {VERSIONS['executorch']}: pip install"
TORCHAO = rf"torchao \S+ is installed, .* written for {VERSIONS['torchao']}: pip install"


@pytest.mark.parametrize(
    ("installed", "options"),
    [(VERSIONS["executorch"], "--force-reinstall --no-deps "), ("1.0", "")],
)
def test_the_remedy_also_replaces_a_damaged_installation(installed, options, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda _: installed)
    said = str(executorch_wheel.changed("executorch", "a file", "none", "one"))
    assert said.endswith(f": pip install {options}executorch=={VERSIONS['executorch']}")


class Norm(nn.Module):
    """Asks the dispatcher for the shape of a Vulkan operator's result, where it is traced."""

    def forward(self, x):
        return torch.ops.et_vk.rms_norm.default(x, torch.ones(4), 1e-5)


def trace_norm():
    tokens = torch.export.Dim("tokens", min=1, max=9)
    traced = torch.export.export(Norm(), (torch.ones(2, 4),), dynamic_shapes=({0: tokens},))
    return [str(node.target) for node in traced.run_decompositions({}).graph.nodes]


def theirs():
    """Their tables that we change for a while."""
    linears = [
        vulkan_supported_ops[getattr(exir_ops.edge.et_vk, name).default].inputs_dtypes
        for name in ("linear_q4gsw", "linear_dq8ca_q4gsw")
    ]
    return linears, list(pattern_registry.fusable_patterns.items())


def test_all_is_put_back_after_an_error():
    before, traced = theirs(), trace_norm()
    qparams = private_operators.torchao_operators().choose_qparams_affine.default
    tokens = torch.linspace(-1, 1, 8).view(2, 4)
    asked = (tokens, "ASYMMETRIC", [1, 4], torch.int8, -128, 127, 1e-6)
    computed = qparams(*asked)
    with (
        pytest.raises(ZeroDivisionError),
        internals.shapes_of_vulkan_operators(),
        internals.partitioner_takes_packed_layers(),
    ):
        assert theirs() != before
        assert trace_norm() == traced
        raise ZeroDivisionError
    assert theirs() == before
    assert trace_norm() == traced
    assert all(torch.equal(*pair) for pair in zip(qparams(*asked), computed, strict=True))


def entered(context):
    with context():
        pass


def other_arguments(monkeypatch, name):
    """An operator of et_vk with an argument more than it had."""
    arguments, shape = internals._VULKAN_OPERATORS[name]
    monkeypatch.setitem(internals._VULKAN_OPERATORS, name, (arguments + " more", shape))


def test_an_operator_with_other_arguments(monkeypatch):
    other_arguments(monkeypatch, "rms_norm")
    message = rf"et_vk\.rms_norm\.default: found \(x weight eps\), expected .*more\)\. {EXECUTORCH}"
    with pytest.raises(QuatrainError, match=message):
        entered(internals.shapes_of_vulkan_operators)


def test_a_pattern_that_is_gone(monkeypatch):
    monkeypatch.delitem(pattern_registry.fusable_patterns, "hf_rope")
    with pytest.raises(QuatrainError, match=rf"^hf_rope of fusable_patterns .*{EXECUTORCH}"):
        entered(internals.partitioner_takes_packed_layers)


def test_an_operator_that_is_not_registered(monkeypatch):
    monkeypatch.delitem(vulkan_supported_ops, exir_ops.edge.et_vk.linear_q4gsw.default)
    with pytest.raises(QuatrainError, match=rf"op_registry: found nothing of .*{EXECUTORCH}"):
        entered(internals.partitioner_takes_packed_layers)


@pytest.mark.parametrize(
    ("holder", "name", "call", "message"),
    [
        (torch.library, "_scoped_library", lambda: entered(internals.shapes_of_vulkan_operators),
         r"torch\.library\._scoped_library: found nothing .* torch 2\.\S+ is installed"),
        (internals.EdgeCompileConfig, "__dataclass_fields__", internals.edge_config,
         rf"_check_ir_validity of EdgeCompileConfig: found nothing .*{EXECUTORCH}"),
    ],
)  # fmt: skip
def test_a_private_name_that_is_gone(holder, name, call, message, monkeypatch):
    if name == "__dataclass_fields__":
        monkeypatch.setattr(holder, name, {})
    else:
        monkeypatch.delattr(holder, name)
    with pytest.raises(QuatrainError, match=message):
        call()


def test_delegates_whose_constants_lie_elsewhere(monkeypatch):
    part = SimpleNamespace(named_data_store_output=SimpleNamespace(blobs=[]))
    monkeypatch.setattr(internals, "lowered_parts", lambda graph: [part])
    manager = SimpleNamespace(exported_program=lambda: SimpleNamespace(graph_module=None))
    with pytest.raises(QuatrainError, match=rf"NamedDataStoreOutput\.buffers.*{EXECUTORCH}"):
        internals.forget_constants(manager)


def test_a_module_that_is_gone(monkeypatch):
    monkeypatch.setitem(sys.modules, "executorch.exir._serialize._named_data_store", None)
    again = importlib.util.spec_from_file_location("again", internals.__file__)
    with pytest.raises(QuatrainError, match=rf"_named_data_store.* {EXECUTORCH}"):
        again.loader.exec_module(importlib.util.module_from_spec(again))


def test_a_delegate_that_is_built_otherwise(monkeypatch):
    monkeypatch.setattr(copied_delegate, "LoweredBackendModule", lambda edge_program, blob: None)
    with pytest.raises(
        QuatrainError, match=rf"Module: found \(edge_program blob\), .*{EXECUTORCH}"
    ):
        copied_delegate.copied_delegate(SimpleNamespace(), b"", [], copied_delegate.Tokens(0, 1))


def test_an_operator_of_torchao_with_other_arguments(monkeypatch):
    monkeypatch.setitem(private_operators._ARGUMENTS, "quantize_affine", "input")
    private_operators.torchao_operators.cache_clear()
    with pytest.raises(QuatrainError, match=rf"torchao\.quantize_affine.*{TORCHAO}"):
        private_operators.torchao_operators()


def test_a_schema_that_has_moved():
    with pytest.raises(QuatrainError, match=rf"nowhere\.fbs of the wheel: .*{EXECUTORCH}"):
        executorch_wheel._text("nowhere.fbs")


def test_the_versions_are_those_that_are_asked_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = dict(line.split("==") for line in project["project"]["dependencies"] if "==" in line)
    assert asked.items() <= VERSIONS.items()
    assert executorch_wheel.installed_versions().keys() == VERSIONS.keys()


# Whose use is documented: what may be imported anywhere.
PUBLIC = {
    "executorch.exir", "executorch.runtime", "executorch.kernels.quantized",
    "executorch.extension.llm.custom_ops",
    "executorch.backends.vulkan.partitioner.vulkan_partitioner",
    "executorch.backends.xnnpack.partition.xnnpack_partitioner",
}  # fmt: skip
# The modules that hold what is private, each saying why.
PRIVATE = (
    "export/lowering/compiler_shortcuts.py",
    "export/lowering/executorch_internals.py",
    "export/lowering/remembered_results.py",
    "export/xnnpack/unused_patterns.py",
    "linear/private_operators.py",
    "runtime/executorch_bindings.py",
)


def private_uses(source: Path):
    """Lines of `source` that name something private of torch, torchao or ExecuTorch."""
    theirs = ("torch", "torchao", "executorch")
    for node in ast.walk(ast.parse(source.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        for name in names:
            parts = name.split(".")
            hidden = any(part.startswith("_") and part != "__version__" for part in parts)
            internal = parts[0] == "executorch" and not isinstance(node, ast.Attribute)
            internal = internal and not PUBLIC & {name, name.rpartition(".")[0]}
            # torch documents `torch._check`.
            if parts[0] in theirs and (hidden or internal) and name != "torch._check":
                yield f"{source.name}:{node.lineno}: {name}"


def test_what_is_private_is_used_in_the_modules_that_say_so():
    package = Path(executorch_wheel.__file__).parent
    found = {
        file.relative_to(package).as_posix(): list(private_uses(file))
        for file in package.rglob("*.py")
    }
    assert all(found[file] for file in PRIVATE)
    assert [use for file, uses in found.items() if file not in PRIVATE for use in uses] == []
