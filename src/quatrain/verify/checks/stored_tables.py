"""The embedding tables that a program stores."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from quatrain.errors import UNFIT, InputError
from quatrain.program import Operator, Program, VulkanGraph
from quatrain.program.plan.row_tables import RowTable, is_lookup, table_of
from quatrain.runtime.reference.quantized import embedding_q4gsw


@dataclass(frozen=True)
class StoredTable:
    """A table [count, width] of a program, its numbers of so many `bits`, None in floating point;
    `rows` gives those of some indices, int64 [n], and `steps` what its integers are multiplied by,
    [n, width], None where no row has integers that are symmetric around 0."""

    count: int
    width: int
    bits: int | None
    rows: Callable[[torch.Tensor], torch.Tensor]
    steps: Callable[[torch.Tensor], torch.Tensor] | None = None

    @property
    def is_half(self) -> bool:
        """Whether its rows are given in float16."""
        return self.rows(torch.zeros(1, dtype=torch.int64)).dtype == torch.float16


class RoundedEmbedding(nn.Module):
    """Looks rows up as a program does that holds them rounded: tokens int64 [...] to float32
    [..., width]. `bits`: of the integers to which they were rounded as it was exported; None if
    only to float16."""

    def __init__(self, table: StoredTable, bits: int | None) -> None:
        super().__init__()
        self._table = table
        self.bits = bits

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self._table.rows(tokens.flatten()).float().reshape(*tokens.shape, -1)


def stored_tables(program: Program, graph: VulkanGraph | None) -> list[StoredTable]:
    """Those of `program`, of a Vulkan one also in its `graph`."""
    return [*(_of_graph(graph) if graph else ()), *_beside_delegates(program)]


def _of_graph(graph: VulkanGraph) -> Iterator[StoredTable]:
    for operator in graph.operators:
        is_one = operator.kind in ("aten.embedding", "et_vk.embedding_q4gsw")
        if is_one and graph.stored(operator.named_args["weights"]) is not None:
            yield _table_of_operator(graph, operator)


def _table_of_operator(graph: VulkanGraph, operator: Operator) -> StoredTable:
    names, width = operator.named_args, graph.tensor(operator.out).shape[-1]
    weights = graph.constant(names["weights"])
    if operator.kind == "aten.embedding":
        return StoredTable(len(weights), width, None, partial(mapped_rows, weights))
    scales = graph.constant(names["weight_scales"])
    group, linear = graph.integer(names["group_size"]), names.get("is_linear_weight")
    as_linear = linear is not None and bool(graph.plain(linear))

    def rows(at: torch.Tensor) -> torch.Tensor:
        packed, of_rows = mapped_rows(weights, at), mapped_rows(scales, at)
        each = torch.arange(len(at), device="cpu")
        return embedding_q4gsw(packed, of_rows, group, each, as_linear).to(of_rows.dtype)

    # Weights that an output layer shares may have more rows; a damaged file's have fewer.
    return StoredTable(min(len(weights), len(scales)), width, 4, rows)


def mapped_rows(table: np.ndarray, at: torch.Tensor) -> torch.Tensor:
    """Those of a mapped `table`, which may be of some GB."""
    return torch.from_numpy(table[at.numpy()])


def _beside_delegates(program: Program) -> Iterator[StoredTable]:
    for plan, method in zip(program.root.execution_plan, program.methods.values(), strict=True):
        values = [value.val for value in plan.values]
        for call in method.instructions:
            if call.kind == "kernel" and is_lookup(call):
                with suppress(InputError, *UNFIT):  # of a form that is not read here, but may run
                    yield from _forms(table_of(program, values, call))


def _forms(table: RowTable) -> Iterator[StoredTable]:
    steps = partial(_steps, table) if table.bits and table.zero_points is None else None
    for swapped in (False, True) if table.bits == 4 else (False,):
        rows = partial(_looked_up, table, swapped)
        yield StoredTable(len(table), table.width, table.bits, rows, steps)


def _steps(table: RowTable, at: torch.Tensor) -> torch.Tensor:
    assert table.scales is not None
    scales = torch.from_numpy(table.scales[at.numpy()].astype(np.float32))
    return scales.abs().repeat_interleave(table.width // scales.shape[1], 1)


def _looked_up(table: RowTable, swapped: bool, at: torch.Tensor) -> torch.Tensor:
    """`swapped`: each byte's halves are the other way round, as `NibbleEmbedding` has them."""
    rows = torch.from_numpy(table.rows(at.numpy()))
    return rows.unflatten(-1, (-1, 2)).flip(-1).flatten(-2) if swapped else rows
