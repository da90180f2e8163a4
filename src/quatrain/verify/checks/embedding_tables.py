"""A program's embedding tables against the checkpoint's, row by row: prompts read few of them."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from quatrain.backbone.model import Backbone
from quatrain.errors import InputError
from quatrain.linear.embedding import QuantizedGroupEmbedding
from quatrain.program import Operator, Program, VulkanGraph
from quatrain.program.row_tables import RowTable, is_lookup, table_of
from quatrain.runtime.reference.quantized import embedding_q4gsw
from quatrain.verify.checks.packed_constants import PackedCheck

_ROWS_AT_ONCE = 4096
# Of a row's largest magnitude, what float32 and float16 may be off by; and of any, 128 of float16's
# smallest steps: half of one in a scale, times an int8.
_FLOAT32, _FLOAT16, _STEPS = 1e-5, 2e-3, 2.0**-17


@dataclass(frozen=True)
class _Table:
    """A table [count, width] of a program; `rows` gives those of some indices, int64 [n]."""

    count: int
    width: int
    rows: Callable[[torch.Tensor], torch.Tensor]


def check_tables(
    program: Program, graph: VulkanGraph | None, backbone: Backbone
) -> list[PackedCheck]:
    """Compare each embedding of `backbone` with the table of `program` that is most like it.

    None is said of an embedding that no table has a row of: another form, such as a table that was
    multiplied by what follows, which the logits tell.
    """
    tables = [*(_of_graph(graph) if graph else ()), *_beside_delegates(program)]
    checks = []
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Embedding | QuantizedGroupEmbedding):
            wrong = [rows for table in tables if (rows := _wrong_rows(table, module)) is not None]
            fewest = min(wrong, key=len, default=None)
            if fewest is not None:
                checks.append(PackedCheck(name, _problem(fewest)))
    return checks


def _problem(wrong: torch.Tensor) -> str | None:
    if not len(wrong):
        return None
    what = "1 row differs" if len(wrong) == 1 else f"{len(wrong)} rows differ"
    return f"{what} from the checkpoint's, the first that of token {int(wrong[0])}"


@torch.inference_mode()
def _wrong_rows(
    table: _Table, module: nn.Embedding | QuantizedGroupEmbedding
) -> torch.Tensor | None:
    """The rows, int64 [n], in which `table` differs from `module`; None of another size, or where
    all do that are not zeros."""
    count = len(module.weight)
    if table.width != module.embedding_dim or table.count < count:
        return None
    rows = torch.arange(count, device="cpu").split(_ROWS_AT_ONCE)
    found = [_differing(table, module, at) for at in rows]
    wrong = torch.cat([differing for differing, _ in found])
    # A row of zeros, such as one that fills up a vocabulary, is alike in tables of any form.
    return wrong if len(wrong) < sum(filled for _, filled in found) else None


def _differing(table: _Table, module: nn.Module, at: torch.Tensor) -> tuple[torch.Tensor, int]:
    """(the rows that differ, int64 [n]; how many are not all zeros) of those `at` int64 [N]"""
    expected, found = module(at).float(), table.rows(at)
    largest = expected.abs().amax(1)
    exact = found.dtype == torch.float32
    allowed = largest * _FLOAT32 if exact else (largest * _FLOAT16).clamp(min=_STEPS)
    differs = ~((found.float() - expected).abs().amax(1) <= allowed)
    return at[differs], int((largest > 0).sum())


def _of_graph(graph: VulkanGraph) -> Iterator[_Table]:
    for operator in graph.operators:
        is_one = operator.kind in ("aten.embedding", "et_vk.embedding_q4gsw")
        if is_one and graph.stored(operator.named_args["weights"]) is not None:
            yield _table_of_operator(graph, operator)


def _table_of_operator(graph: VulkanGraph, operator: Operator) -> _Table:
    names, width = operator.named_args, graph.tensor(operator.out).shape[-1]
    weights = graph.constant(names["weights"])
    if operator.kind == "aten.embedding":
        return _Table(len(weights), width, partial(_rows, weights))
    scales = graph.constant(names["weight_scales"])
    group, linear = graph.integer(names["group_size"]), names.get("is_linear_weight")
    as_linear = linear is not None and bool(graph.plain(linear))

    def rows(at: torch.Tensor) -> torch.Tensor:
        packed, of_rows = _rows(weights, at), _rows(scales, at)
        each = torch.arange(len(at), device="cpu")
        return embedding_q4gsw(packed, of_rows, group, each, as_linear).to(of_rows.dtype)

    # Weights that an output layer shares may have more rows; a damaged file's have fewer.
    return _Table(min(len(weights), len(scales)), width, rows)


def _rows(table: np.ndarray, at: torch.Tensor) -> torch.Tensor:
    """Those of a mapped `table`, which may be of some GB."""
    return torch.from_numpy(table[at.numpy()])


def _beside_delegates(program: Program) -> Iterator[_Table]:
    for plan, method in zip(program.root.execution_plan, program.methods.values(), strict=True):
        values = [value.val for value in plan.values]
        for call in method.instructions:
            if call.kind == "kernel" and is_lookup(call):
                with suppress(InputError):  # of a form that is not read here, but may run
                    yield from _forms(table_of(program, values, call))


def _forms(table: RowTable) -> Iterator[_Table]:
    for turned in (False, True) if table.bits == 4 else (False,):
        yield _Table(len(table), table.width, partial(_looked_up, table, turned))


def _looked_up(table: RowTable, turned: bool, at: torch.Tensor) -> torch.Tensor:
    """`turned`: each byte's halves are the other way round, as `NibbleEmbedding` has them."""
    rows = torch.from_numpy(table.rows(at.numpy()))
    return rows.unflatten(-1, (-1, 2)).flip(-1).flatten(-2) if turned else rows
