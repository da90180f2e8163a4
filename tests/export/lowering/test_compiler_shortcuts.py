"""What is left out of torch's and ExecuTorch's compilers changes nothing, and is put back."""

import copy

import pytest
import torch
from executorch.exir.pass_base import ExportPass
from executorch.exir.passes import OpReplacePass
from torch import nn
from torch._C import DispatchKey
from torch._subclasses import fake_impls
from torch.export import decomp_utils, exported_program
from torch.fx.traceback import NodeSource

from quatrain.errors import QuatrainError
from quatrain.export.lowering import remembered_results
from quatrain.export.lowering.compiler_shortcuts import compiler_shortcuts
from quatrain.export.lowering.remembered_results import results_remembered


def test_a_list_of_operators_that_is_gone(monkeypatch):
    name = "_collect_all_valid_cia_ops"
    before = getattr(decomp_utils, name)
    with compiler_shortcuts():
        assert getattr(decomp_utils, name) is not before
    assert getattr(decomp_utils, name) is before
    monkeypatch.delattr(decomp_utils, name)
    message = rf"{name} of torch\.export\.decomp_utils: found None, .* torch 2\.\S+ is installed"
    with pytest.raises(QuatrainError, match=message), compiler_shortcuts():
        pass


def kernels_within(decompositions):
    """The kernels in Python of each operator while those hold, and what knows its shapes."""
    with exported_program._override_composite_implicit_decomp(decompositions):
        shapes = fake_impls.op_implementations_dict
        return [(dict(op.py_kernels), shapes[op]) for op in decompositions]


def test_kernels_that_are_made_once_are_torchs():
    ops = [torch.ops.aten.linear.default, torch.ops.aten.matmul.default]
    state = [(dict(op.py_kernels), fake_impls.op_implementations_dict.get(op)) for op in ops]
    first, second = (dict.fromkeys(ops, lambda *_, of=of: of) for of in (1, 2))
    theirs = kernels_within(second)
    with compiler_shortcuts():
        kernels_within(first)
        ours = kernels_within(second)
        assert kernels_within(second)[0][0] == ours[0][0]  # made once
    for op, (their, _), (our, shape) in zip(ops, theirs, ours, strict=True):
        assert our.keys() == their.keys() and shape.func.__name__.startswith("_force")
        assert our[DispatchKey.CompositeImplicitAutograd] is second[op]
    assert state == [(op.py_kernels, fake_impls.op_implementations_dict.get(op)) for op in ops]


def test_a_nodes_origins_are_copied_again():
    with compiler_shortcuts():
        pass
    node = torch.fx.symbolic_trace(nn.ReLU()).graph.output_node()
    source = NodeSource(node)
    assert copy.deepcopy(source) is not source


def passed_twice(graph):
    """What its operators give after a pass of ExecuTorch, and after another one, for which they
    are those of its edge dialect."""
    once = ExportPass()(graph).graph_module
    edge = OpReplacePass()(copy.copy(once)).graph_module
    twice = ExportPass()(edge).graph_module
    return [
        [node.meta["val"] for node in each.graph.nodes if node.op == "call_function"]
        for each in (once, twice)
    ]


def test_results_are_remembered_between_passes():
    tokens = torch.export.Dim("tokens", min=2, max=9)
    graphs = [
        torch.export.export(
            nn.Sequential(nn.Linear(4, 4), nn.ReLU()), (torch.ones(3, 4),),
            dynamic_shapes=({0: tokens},),
        ).run_decompositions({}).graph_module
        for _ in range(2)
    ]  # fmt: skip
    with results_remembered():
        (once, twice), (others, _) = (passed_twice(graph) for graph in graphs)
    assert len(once) == len(others) > 1
    for first, second, other in zip(once, twice, others, strict=True):
        assert first is second and other is not first  # of another model's tensors
        assert other.shape == first.shape
    once, twice = passed_twice(graphs[0])
    assert once[0] is not twice[0]


def test_tensors_with_values_are_not_remembered():
    runs, add = torch.fx.Interpreter(torch.fx.symbolic_trace(nn.ReLU())), torch.ops.aten.add.Tensor
    interpreter = remembered_results._Interpreter(runs, None, {})
    held = torch.ones(1)
    assert interpreter.call_function(add, (held, 1), {}) == 2
    held += 1
    assert interpreter.call_function(add, (held, 1), {}) == 3
    assert interpreter.call_function(add, (held, 1), {"alpha": 2}) == 4


def test_a_graph_is_compiled_when_it_is_called():
    """As it is then, and those below it; what is left is put back."""
    before = torch.fx.GraphModule.recompile
    with compiler_shortcuts():
        outer = torch.fx.symbolic_trace(nn.Sequential(nn.ReLU()))
        inner = torch.fx.symbolic_trace(lambda x: torch.relu(x))
        outer.add_module("0", inner)
        assert "relu" not in inner.code
        assert outer(torch.ones(1)) == 1 and "relu" in inner.code
        (call,) = inner.graph.find_nodes(op="call_function", target=torch.relu)
        call.target = torch.neg
        outer.recompile()
    assert torch.fx.GraphModule.recompile is before
    assert inner(torch.ones(1)) == outer(torch.ones(1)) == -1 and "neg" in inner.code
