"""A CPU program without int8 activations: its delegates' nodes as ExecuTorch's own runtime has
them, and all of it as the eager backbone."""

from pathlib import Path

import pytest
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import ExecutorchBackendConfig, to_edge, to_edge_transform_and_lower
from executorch.exir.passes.init_mutable_pass import InitializedMutableBufferPass
from executorch.runtime import Runtime
from tests.support.comparisons.rounding import called, largest_error
from tests.support.defects.edited_methods import Edit, edited_method, kernel_calls
from tests.support.models.tiny_programs import shared_tiny, shared_tiny_xnnpack
from torch import nn

from quatrain.errors import InputError
from quatrain.export.lowering.compiler_shortcuts import compiler_shortcuts
from quatrain.export.xnnpack.unused_patterns import without_unused_patterns
from quatrain.program import open_program
from quatrain.program.file.flatbuffer import Record
from quatrain.program.xnnpack_delegate import read_xnnpack_graph
from quatrain.quiet import quiet
from quatrain.runtime.unrounded import delegate
from quatrain.runtime.unrounded.delegate import UnroundedDelegate
from quatrain.runtime.unrounded.errors import NotComputed
from quatrain.runtime.unrounded.runner import UnroundedRunner
from quatrain.verify.eager import load_eager

_FLOAT = 6  # of ScalarType
CALLS = ((0, 7), (7, 8), (8, 9), (9, 20))


class Nodes(nn.Module):
    """Of a [2, 3, 8] and b [2, 3, 8], which are above 0.5."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(8, 8)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, ...]:
        one = torch.maximum(a, b) - torch.minimum(a, b) / b + a * b
        two = torch.bmm(a, b.permute(0, 2, 1))
        unary = [
            a.abs(), a.ceil(), a.floor(), a.neg(), a.square(), b.sqrt(), b.rsqrt(), b.exp(),
            b.log(), a.sigmoid(), a.tanh(), nn.functional.gelu(a), a.sin(), a.cos(),
            nn.functional.hardswish(a), a.softmax(-1), self.into(a).relu(), a.clamp(-0.2, 0.3),
            nn.functional.leaky_relu(a, 0.2), a.view(2, 1, -1),
            nn.functional.pad(a, (1, 2, 0, 3), value=0.4),
        ]  # fmt: skip
        return (torch.cat([one, *unary[:3]], -1), two, a[:, 1:, 2:6], *unary[3:])


def test_nodes_are_computed_as_on_executorch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    given = torch.randn(2, 3, 8), torch.rand(2, 3, 8) + 0.5
    with compiler_shortcuts(), without_unused_patterns():
        exported = torch.export.export(Nodes().eval(), given)
        lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    path = tmp_path / "m.pte"
    path.write_bytes(lowered.to_executorch().buffer)
    expected = Runtime.get().load_program(path).load_method("forward").execute(given)
    program = open_program(path)
    (delegate,) = program.delegates
    assert not program.calls_outside_delegates()
    graph = read_xnnpack_graph(delegate, program.named_bytes, "m.pte")
    kinds = {node.xnode_union.table for node in graph.nodes}
    assert len(kinds) >= 27
    compute = UnroundedDelegate(graph)
    (call,) = program.instructions
    plan = program.root.execution_plan[0]
    arguments = [given[plan.inputs.index(i)] if i in plan.inputs else given[0] for i in call.args]
    found = dict(zip((call.args[at] for at in compute.results), compute(arguments), strict=True))
    for value, theirs in zip(plan.outputs, expected, strict=True):
        torch.testing.assert_close(found[value], theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("nudge", "at_once"), [(0.0, 2**18), (0.0, 200), (1e-3, 2**18)])
def test_a_program_is_its_backbone_without_rounding(
    nudge: float, at_once: int, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To float32's rounding, as many weights as may be dequantized at once; in other weights it is
    not."""
    monkeypatch.setattr(delegate, "_AT_ONCE", at_once)
    runner = UnroundedRunner(open_program(shared_tiny_xnnpack(shared)))
    eager = load_eager(shared_tiny(shared).checkpoint, "weight-only")
    eager.norm.weight.data *= 1 + nudge * torch.randn(eager.norm.weight.shape)
    text = torch.randint(96, (1, 20), generator=torch.Generator().manual_seed(0))
    error = largest_error(called(runner, text, CALLS), called(eager, text, CALLS))
    assert (error < 1e-5) is (nudge == 0.0)
    assert runner.has_int4_groups


class Counting(nn.Module):
    """Logits of tokens and of what is counted from 0.5 on, a buffer that begins as said."""

    count: torch.Tensor

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.rows = nn.Embedding(9, 4, dtype=dtype)
        self.register_buffer("count", torch.full((4,), 0.5, dtype=dtype))

    def forward(self, tokens: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        self.count.add_(1 + position)
        return self.rows(tokens) + self.count


def counting(path: Path, dtype: torch.dtype) -> Path:
    given = torch.ones(1, 3).long(), torch.zeros(1).long()
    lowered = to_edge(torch.export.export(Counting(dtype).eval(), given))
    options = ExecutorchBackendConfig(passes=[InitializedMutableBufferPass(["count"])])
    with quiet():  # it warns of buffers whose beginning others leave out
        path.write_bytes(lowered.to_executorch(options).buffer)
    return path


def test_buffers_begin_as_the_file_says(tmp_path: Path) -> None:
    """In a program whose casts are said to keep the order of dimensions."""
    path = counting(tmp_path / "m.pte", torch.float32)
    method = Runtime.get().load_program(path).load_method("forward")
    assert "dim_order_ops._to_dim_order_copy.out" in open_program(path).calls_outside_delegates()
    runner, tokens = UnroundedRunner(open_program(path)), torch.tensor([[3, 1, 4]])
    first, second = (method.execute((tokens, torch.tensor([at])))[0].clone() for at in (0, 3))
    for _ in range(2):
        torch.testing.assert_close(runner.forward(tokens, torch.tensor([0])), first)
        torch.testing.assert_close(runner.forward(tokens, torch.tensor([3])), second)
        runner.reset()


def test_activations_in_float16_are_computed_in_float32(tmp_path: Path) -> None:
    path, tokens = counting(tmp_path / "m.pte", torch.float16), torch.tensor([[3, 1, 4]])
    theirs = Runtime.get().load_program(path).load_method("forward")
    runner = UnroundedRunner(open_program(path))
    assert runner.has_halves
    for at in (0, 3):
        given = tokens, torch.tensor([at])
        found, rounded = runner.forward(*given), theirs.execute(given)[0]
        assert found.dtype == torch.float32 and rounded.dtype == torch.float16
        assert not torch.equal(found, rounded.float())
        torch.testing.assert_close(found, rounded.float(), rtol=2.0**-10, atol=2.0**-10)


def test_activations_in_bfloat16_are_not_computed(tmp_path: Path) -> None:
    program = open_program(counting(tmp_path / "m.pte", torch.bfloat16))
    with pytest.raises(NotComputed, match="activations in bfloat16"):
        UnroundedRunner(program)


def test_what_is_not_computed_is_named(shared: Path, tmp_path: Path) -> None:
    source = shared_tiny_xnnpack(shared)

    def unknown_operator(plan):
        next(each for each in plan.operators if each.name == "executorch_prim::add").name += "2"

    def too_large(plan):
        plan.values[plan.outputs[0]].val.sizes = [1, 4]

    with pytest.raises(NotComputed, match=r"the operator executorch_prim\.add2\.Scalar"):
        UnroundedRunner(open_program(edited_method(source, unknown_operator)(tmp_path)))
    runner = UnroundedRunner(open_program(edited_method(source, too_large)(tmp_path)))
    with pytest.raises(InputError, match=r"cannot be computed: torch.float32 \[1, 96\] in room"):
        runner.forward(torch.tensor([[3]]), torch.tensor([0]))


def misaligned(plan: Record) -> None:
    next(
        value.val.allocation_info
        for value in plan.values
        if getattr(value.val, "allocation_info", None) and value.val.scalar_type == _FLOAT
    ).memory_offset_low += 3


def number_as_result(plan: Record) -> None:
    plan.outputs = [next(i for i, each in enumerate(plan.values) if each.val.table == "Int")]


def tokens_of_another_type(plan: Record) -> None:
    plan.values[plan.inputs[0]].val.scalar_type = 0


def other_operator(plan: Record) -> None:
    """Of which no result is there."""
    names = [each.name for each in plan.operators]
    view = kernel_calls(plan, "executorch_prim::et_view")[0]
    view.op_index = names.index("aten::slice_copy")


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (misaligned, "its memory cannot be computed: .* divisible by 4"),
        (number_as_result, "its result cannot be computed"),
        (tokens_of_another_type, "what it is given cannot be computed: torch.int64"),
        (other_operator, r"instruction \d+ cannot be computed: KeyError"),
    ],
)
def test_a_damaged_plan_is_an_error_that_says_where(
    edit: Edit, what: str, shared: Path, tmp_path: Path
) -> None:
    program = open_program(edited_method(shared_tiny_xnnpack(shared), edit)(tmp_path))
    with pytest.raises(InputError, match=rf"edited\.pte: {what}"):
        UnroundedRunner(program).forward(torch.tensor([[3]]), torch.tensor([0]))
