"""Programs that look the rows of a table up on the CPU, ahead of their delegate, as ExecuTorch's
exporter leaves a table that Vulkan does not hold."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
from executorch.exir.dialects._ops import ops
from executorch.exir.passes import _quant_patterns_and_replacements  # noqa: F401  the operators
from tests.support.devices import DEVICES_OF
from torch import nn

from quatrain.errors import InputError
from quatrain.export.lowering.compiler_shortcuts import compiler_shortcuts
from quatrain.program import open_program
from quatrain.program.plan.row_tables import table_of
from quatrain.runtime.executorch import ExecutorchRunner
from quatrain.runtime.load import load_runner
from quatrain.targets import examine

ROWS, WIDTH, GROUPS, LONGEST = 12, 16, 4, 8
QUANTIZED = torch.ops.quantized_decomposed
BYTE, FOUR = QUANTIZED.embedding_byte, QUANTIZED.embedding_4bit
PER_ROW, IN_GROUPS = (ROWS,), (ROWS, GROUPS)
HALF, FLOAT = torch.float16, torch.float32
# The operator; the stored type and width; the range of its integers; the scales' shape and type,
# whether there are zero points, and the type that is stated.
TABLES: dict[str, Any] = {
    "int8": (BYTE, torch.int8, WIDTH, (-128, 127), PER_ROW, FLOAT, False, None),
    "int8 in groups": (BYTE, torch.int8, WIDTH, (-128, 127), IN_GROUPS, HALF, False, FLOAT),
    "uint8": (BYTE, torch.uint8, WIDTH, (0, 255), PER_ROW, FLOAT, True, None),
    "int8, half rows": (BYTE, torch.int8, WIDTH, (-128, 127), IN_GROUPS, HALF, True, None),
    "int4": (FOUR, torch.uint8, WIDTH // 2, (-8, 7), IN_GROUPS, FLOAT, True, FLOAT),
    "int2": (QUANTIZED.embedding_2bit, torch.uint8, WIDTH // 4, (-2, 1), IN_GROUPS, FLOAT, False,
             None),
    "floating point": None,
    "half": HALF,
}  # fmt: skip


class Rows(nn.Module):
    """The rows that tokens have in a table."""

    def __init__(self, table: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = table
        if table is None or isinstance(table, torch.dtype):
            self.register_buffer("weight", torch.randn(ROWS, WIDTH).to(table or FLOAT))
            return
        self.operator, stored, width, self.limits, shape, dtype, zeros, self.stated = table
        info = torch.iinfo(stored)
        weight = torch.randint(info.min, info.max + 1, (ROWS, width), dtype=stored)
        self.register_buffer("weight", weight)
        self.register_buffer("scales", torch.rand(shape).to(dtype))
        zero_points = torch.randn(shape).round().to(dtype)
        self.register_buffer("zero_points", zero_points if zeros else None)

    def forward(self, tokens: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        if self.table is None or isinstance(self.table, torch.dtype):
            return nn.functional.embedding(tokens, self.weight)
        given = (self.weight, self.scales, self.zero_points, *self.limits, tokens)
        if self.stated is None:
            return self.operator.default(*given)
        return self.operator.dtype(*given, dtype=self.stated)


class Added(Rows):
    """Rows, and what a delegate adds to them."""

    def forward(self, tokens: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        return super().forward(tokens, position) + position.to(FLOAT)


def exported(model: nn.Module, path: Path, vulkan: bool = False) -> Path:
    given = torch.ones(1, LONGEST).long(), torch.zeros(1).long()
    varies = {"tokens": {1: torch.export.Dim("T", max=LONGEST)}, "position": None}
    partitioner = VulkanPartitioner(
        {"require_dynamic_shapes": True}, operator_blocklist=[ops.edge.aten.embedding.default]
    )
    with compiler_shortcuts():
        edge = to_edge_transform_and_lower(
            torch.export.export(model.eval(), given, dynamic_shapes=varies),
            partitioner=[partitioner] if vulkan else [],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
        path.write_bytes(edge.to_executorch().buffer)
    return path


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_rows_are_those_of_executorchs_runtime(table, tmp_path):
    program = open_program(exported(Rows(table), tmp_path / "m.pte"))
    (plan,) = [each for each in program.root.execution_plan if each.name == "forward"]
    call, *_ = program.instructions
    tokens = torch.tensor([[3, 1, ROWS - 1, 0]])
    expected = ExecutorchRunner(program).forward(tokens, torch.tensor([0]))
    found = table_of(program, [each.val for each in plan.values], call).rows(tokens.numpy())
    assert found.dtype == expected.numpy().dtype
    np.testing.assert_array_equal(found, expected.numpy())


def test_a_program_that_looks_rows_up_runs(tmp_path):
    model = Added(TABLES["int8 in groups"])
    path = exported(model, tmp_path / "vulkan.pte", vulkan=True)
    expected = ExecutorchRunner(exported(model, tmp_path / "portable.pte"))
    program = open_program(path)
    called = {"quantized_decomposed.embedding_byte.dtype_out": 1}
    assert program.calls_outside_delegates() == called
    assert not [found for found in examine(program) if found.defect == "partial-delegation"]
    for device in DEVICES_OF["vulkan"]:
        runner = load_runner(path, device)
        for tokens in ([3, 1, 4, 1, 5], [ROWS - 1], range(LONGEST)):
            call = torch.tensor([list(tokens)]), torch.tensor([2])
            torch.testing.assert_close(runner.forward(*call), expected.forward(*call))
        with pytest.raises(InputError, match=f"token {ROWS} is outside the table"):
            runner.forward(torch.tensor([[1, ROWS]]), torch.tensor([0]))
        with pytest.raises(InputError, match=r"expected int64\[1, 8\], int64\[1\]"):
            runner.forward(torch.tensor([[1]]))
