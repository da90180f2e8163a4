"""CPU programs from a template equal fully lowered ones, by instruction and byte for byte."""

import hashlib

import pytest
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
    XnnpackDynamicallyQuantizedPartitioner,
    XnnpackPartitioner,
)
from executorch.exir import to_edge_transform_and_lower
from executorch.exir.lowered_backend_module import LoweredBackendModule
from tests.support.comparisons.rounding import assert_equal_but_for_rounding, called
from tests.support.models.tiny_checkpoint import PARAMS, QWEN_LIKE, write_checkpoint
from tests.support.thorough import thorough
from torch import nn

from quatrain.arithmetic import XNNPACK_ARITHMETIC
from quatrain.backbone.build import build_backbone
from quatrain.checkpoint.open import open_checkpoint
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.export.lowering.compiler_shortcuts import compiler_shortcuts
from quatrain.export.lowering.executorch_internals import edge_config
from quatrain.export.metadata import metadata_methods
from quatrain.export.xnnpack import delegated_linears
from quatrain.export.xnnpack.delegated_linears import Shape
from quatrain.export.xnnpack.lowering import write_xnnpack_program
from quatrain.export.xnnpack.operator_modules import to_cpu_operators
from quatrain.export.xnnpack.program_from_template import xnnpack_template
from quatrain.linear import Int8DynActInt4WeightLinear, Int8DynActInt8WeightLinear
from quatrain.program import open_program
from quatrain.program.edit import replicated_instructions
from quatrain.program.edit.replicated_layers import IrregularGraph
from quatrain.quiet import quiet
from quatrain.release.tasks import functions
from quatrain.runtime.executorch import ExecutorchRunner
from quatrain.stages import Stages
from quatrain.verify.eager import load_eager

XNNPACK = ExportOptions(backend="xnnpack")
CASES = {
    "tied int4 embedding": (4, "int4", "tied", {}),
}
THOROUGH = {
    "int8 embedding": (4, "int8", "int4", {}),
    "biases, query and key norm, int8 output": (4, "int8", "int8", QWEN_LIKE),
}


class Instructions:
    """A program's instructions with what their arguments are, not how they are numbered.

    A computed value is the instruction that wrote it last: a call writes its last argument.
    """

    def __init__(self, path):
        self.program = open_program(path)
        self.root = self.program.root
        self.plan = self.root.execution_plan[0]
        self.written = {i: ("input", n) for n, i in enumerate(self.plan.inputs)}
        self.calls = []
        for step in self.plan.chains[0].instructions:
            call = step.instr_args
            what = self.operator(call) if call.table == "KernelCall" else self.delegate(call)
            self.written.pop(call.args[-1], None)  # what it held before does not matter
            self.calls.append((what, [self.value(i) for i in call.args]))
            self.written[call.args[-1]] = len(self.calls)

    def operator(self, call):
        operator = self.plan.operators[call.op_index]
        return operator.name, operator.overload

    def delegate(self, call):
        record = self.plan.delegates[call.delegate_index]
        return record.id, bytes(self.program.segment(record.processed.index))

    def value(self, value_id):
        value = self.plan.values[value_id].val
        if value is None or value.table == "Null":
            return None
        if value.table.endswith("List"):
            return [self.value(i) for i in value.items]
        fields = vars(value).copy()
        if value.table == "Tensor":
            index = fields.pop("data_buffer_idx")
            place = fields.pop("allocation_info")
            fields["planned"] = place is not None
            if index:
                start = self.root.constant_segment.offsets[index]
                data = self.program.segment(self.root.constant_segment.segment_index)
                size = torch.Size(value.sizes).numel() * {1: 1, 6: 4, 0: 1}[value.scalar_type]
                fields["data"] = hashlib.sha256(data[start : start + size]).hexdigest()
        return fields, self.written.get(value_id)


def lower_in_full(checkpoint, path):
    opened = open_checkpoint(checkpoint)
    backbone = build_backbone(opened.config, opened.tensors, "8da4w")
    metadata = metadata_methods(backbone, opened.params, "xnnpack")
    to_cpu_operators(backbone)
    write_xnnpack_program(backbone, metadata, path, Stages())


@pytest.mark.parametrize("case", [*CASES, *thorough(THOROUGH)])
def test_replicated_equals_lowered_in_full(case, tmp_path):
    depth, embedding, output, params = (CASES | THOROUGH)[case]
    checkpoint = write_checkpoint(
        tmp_path / "c", embedding=embedding, output=output, n_layers=depth, **params
    )
    report = export_checkpoint(checkpoint, tmp_path / "replicated.pte", XNNPACK)
    assert not [note for note in report.notes if "lowered separately" in note]
    lower_in_full(checkpoint, tmp_path / "full.pte")
    replicated, full = (Instructions(tmp_path / f"{name}.pte") for name in ("replicated", "full"))
    assert replicated.calls == full.calls
    assert len(replicated.plan.delegates) == len(full.plan.delegates) < len(full.calls)
    assert replicated.plan.non_const_buffer_sizes <= full.plan.non_const_buffer_sizes
    assert replicated.program.metadata == full.program.metadata
    assert set(replicated.program.named_data) == set(full.program.named_data)
    for key in full.program.named_data:
        assert replicated.program.named_bytes(key) == full.program.named_bytes(key)
    same_logits(tmp_path, load_eager(checkpoint, "8da4w", XNNPACK_ARITHMETIC))


def same_logits(folder, eager):
    """Equal bit for bit to the fully lowered program's, and but for rounding to eager's."""
    runners = [ExecutorchRunner(folder / f"{name}.pte") for name in ("replicated", "full")]

    def text(generator):
        return torch.randint(PARAMS["vocab_size"], (1, 7), generator=generator)

    calls = ((0, 4), (4, 5), (5, 7))
    assert_equal_but_for_rounding(runners[0], eager, text, calls)
    tokens = text(torch.Generator().manual_seed(1))
    for ours, theirs in zip(*(called(one, tokens, calls) for one in runners), strict=True):
        assert torch.equal(ours, theirs)


def test_a_tied_output_layer_shares_the_bytes_of_an_int4_embedding(tmp_path):
    sizes = []
    for output in ("tied", "int4"):
        checkpoint = write_checkpoint(tmp_path / output, embedding="int4", output=output)
        path = tmp_path / f"{output}.pte"
        export_checkpoint(checkpoint, path, XNNPACK)
        sizes.append(path.stat().st_size)
    packed = 128 * 64 // 2
    assert packed <= sizes[1] - sizes[0] < packed + 1024


def test_the_same_input_gives_the_same_bytes(tmp_path):
    """In a release too, which hears what part of the weights is packed."""
    checkpoint, heard = write_checkpoint(tmp_path / "c", embedding="int4"), []
    export_checkpoint(checkpoint, tmp_path / "a.pte", XNNPACK)
    functions.export(tmp_path, checkpoint, XNNPACK, None, heard.append)
    assert (tmp_path / "a.pte").read_bytes() == (tmp_path / "model.pte").read_bytes()
    assert len(heard) > 2 and heard == sorted(heard) and 0.5 < heard[0] < heard[-1] == 1


def test_layers_of_several_kinds_are_lowered_in_full_and_said_so(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "c", n_layers=3, no_rope_layer_interval=2)
    report = export_checkpoint(checkpoint, tmp_path / "m.pte", XNNPACK)
    assert any("its layers differ in kind" in note for note in report.notes)


def test_a_result_at_another_place_is_said_without_an_address(tmp_path):
    """The reason is in the report of a release, whose bytes are the same each time."""
    opened = open_checkpoint(write_checkpoint(tmp_path / "c", embedding="int4", output="tied"))
    backbone = build_backbone(opened.config, opened.tensors, "8da4w")
    metadata = metadata_methods(backbone, opened.params, "xnnpack")
    to_cpu_operators(backbone)
    plan = xnnpack_template(backbone, metadata, Stages()).root.execution_plan[0]
    _, last = replicated_instructions._Uses(plan).layer_starts()
    plan.values[last.entry].val.allocation_info.memory_offset_low += 16
    with pytest.raises(IrregularGraph, match=r"^a layer's result is .* than its input$"):
        replicated_instructions.replicate_instructions(plan, 4)


@pytest.mark.parametrize(
    "kind", [Int8DynActInt4WeightLinear, Int8DynActInt8WeightLinear, nn.Linear]
)
def test_a_linear_of_the_most_tokens_is_that_of_any_number(kind):
    """Its delegate, equal byte for byte to one that ExecuTorch lowers for 1 to 64 tokens."""
    group = 32 if kind is Int8DynActInt4WeightLinear else None
    shape = Shape(kind, 64, 64, group, has_bias=False, tokens=64)
    like = delegated_linears.random_linear(shape)
    tokens = torch.export.Dim("tokens", min=1, max=64)
    with torch.no_grad(), quiet(), compiler_shortcuts():
        ours = delegated_linears._lowered(shape).delegate
        program = torch.export.export(like, (torch.zeros(1, 3, 64),), dynamic_shapes=({1: tokens},))
        partitioner = (
            XnnpackPartitioner() if kind is nn.Linear else XnnpackDynamicallyQuantizedPartitioner()
        )
        edge = to_edge_transform_and_lower(
            program, partitioner=[partitioner], compile_config=edge_config()
        )
    parts = edge.exported_program().graph_module.modules()
    (lowered,) = [part for part in parts if isinstance(part, LoweredBackendModule)]
    assert ours.processed_bytes == lowered.processed_bytes
