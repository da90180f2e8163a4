"""Compares a program's embedding tables with the checkpoint's, row by row, because prompts read
only few rows."""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from quatrain.backbone.model import Backbone
from quatrain.checkpoint.layout import EMBEDDING
from quatrain.errors import UNFIT, InputError
from quatrain.linear.embedding import QuantizedGroupEmbedding
from quatrain.program import Operator, Program, VulkanGraph
from quatrain.program.plan.row_tables import RowTable, is_lookup, table_of
from quatrain.runtime.reference.quantized import embedding_q4gsw
from quatrain.verify.checks.packed_constants import PackedCheck

_ROWS_AT_ONCE = 256  # of 7,680 numbers, in the processor's cache
# Of a row's largest magnitude, what float32 and float16 may be off by; and of any, 128 of float16's
# smallest steps: half of one in a scale, times an int8.
_FLOAT32, _FLOAT16, _STEPS = 1e-5, 2e-3, 2.0**-17
_UNRELATED = 0.5  # of a row's length, what no other rounding of the same model is off by
_CLIPPED = 2.0  # by how many steps a number may be beyond the last integer
_OF_SCALES = 2.0**-8  # of a number that is rounded to integers, what it is off by besides: bfloat16

_Embedding = nn.Embedding | QuantizedGroupEmbedding


@dataclass(frozen=True)
class _Table:
    """A table [count, width] of a program, its numbers of so many `bits`, None in floating point;
    `rows` gives those of some indices, int64 [n], and `steps` what its integers are multiplied by,
    [n, width], None where no row has integers that are symmetric around 0."""

    count: int
    width: int
    bits: int | None
    rows: Callable[[torch.Tensor], torch.Tensor]
    steps: Callable[[torch.Tensor], torch.Tensor] | None = None


class RoundedEmbedding(nn.Module):
    """Looks rows up as a program does that holds them as int8 or int4, rounded as it was exported:
    tokens int64 [...] to float32 [..., width]."""

    def __init__(self, table: _Table) -> None:
        super().__init__()
        self._table = table
        self.bits = table.bits

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self._table.rows(tokens.flatten()).float().reshape(*tokens.shape, -1)


def check_tables(
    program: Program,
    graph: VulkanGraph | None,
    backbone: Backbone,
    strict: bool,
    advance: Callable[[float], None],
) -> tuple[list[PackedCheck], list[str]]:
    """Compare each embedding of `backbone` with the table of `program` that is most like it.

    Returns the checks, and the names of those that cannot be compared. `strict`: the program is
    one of ours, whose tables hold the checkpoint's rows. Another's may hold them rounded once more:
    to the nearest integers they are right, and `backbone` is given the same, a `RoundedEmbedding`.
    Rounded otherwise, or multiplied by what a model multiplies its embeddings by, the logits tell.
    """
    tables = [*(_of_graph(graph) if graph else ()), *_beside_delegates(program)]
    checks, unknown = [], []
    for name, module in list(backbone.named_modules()):
        if isinstance(module, _Embedding):
            wrong = _wrong_rows(tables, module, strict, _embedding_factor(backbone, name), advance)
            if isinstance(wrong, _Table):
                table, wrong = wrong, _not_nearest(wrong, module)
                if wrong is not None:
                    backbone.set_submodule(name, RoundedEmbedding(table))
            if wrong is None:
                unknown.append(name)
            else:
                checks.append(PackedCheck(name, _problem(wrong)))
    return checks, unknown


def _embedding_factor(backbone: Backbone, name: str) -> float | None:
    """What the model multiplies the rows of that embedding by, if by anything."""
    of = backbone if name == EMBEDDING else backbone.per_layer
    return None if of is None or of.scale_embedding is None else float(of.scale_embedding.factor)


def _problem(wrong: torch.Tensor) -> str | None:
    if not len(wrong):
        return None
    what = "1 row differs" if len(wrong) == 1 else f"{len(wrong)} rows differ"
    return f"{what} from the checkpoint's, the first that of token {int(wrong[0])}"


@torch.inference_mode()
def _wrong_rows(
    tables: list[_Table],
    module: _Embedding,
    strict: bool,
    folded: float | None,
    advance: Callable[[float], None],
) -> torch.Tensor | _Table | None:
    """The rows, int64 [n], in which the table that is most like `module` differs from it; if
    most do, and, unless `strict`, its form may be why, that table if it is rounded to other bits,
    and None if all rows are `folded` times the checkpoint's, or unlike them."""
    fits = {table: _best_fit(table, module) for table in tables}
    closest = min(fits, key=lambda table: fits[table][0], default=None)
    if closest is None or fits[closest][0] == math.inf:
        return None
    off, factor = fits[closest]
    count, wrong, filled = len(module.weight), [], 0
    for at in torch.arange(count, device="cpu").split(_ROWS_AT_ONCE):
        differing, not_zeros = _rows_that_differ(closest, module, at)
        wrong.append(differing)
        filled += not_zeros
        advance(int(at[-1] + 1) / count)
    found = torch.cat(wrong)
    bits = module.bit_width if isinstance(module, QuantizedGroupEmbedding) else None
    is_rounded = closest.bits not in (None, bits)
    is_folded = folded is not None and math.isclose(factor, folded, rel_tol=_FLOAT16)
    in_other_form = is_rounded or off >= _UNRELATED or (is_folded and off < _FLOAT16)
    # Rows of zeros, or of less than float16 holds, are alike in tables of any form.
    if 2 * len(found) < filled or strict or not in_other_form:
        return found
    return closest if is_rounded and off < _UNRELATED and not is_folded else None


@torch.inference_mode()
def _not_nearest(table: _Table, module: _Embedding) -> torch.Tensor | None:
    """The rows, int64 [n], of `table` whose integers are not the nearest to those of `module`; None
    where most are not, or that cannot be told."""
    if table.steps is None or table.bits is None:
        return None
    ends, wrong = 2 ** (table.bits - 1) - 1.5, []
    for at in torch.arange(len(module.weight), device="cpu").split(_ROWS_AT_ONCE):
        expected, found, steps = module(at).float(), table.rows(at).float(), table.steps(at)
        of_steps = torch.where(found.abs() > ends * steps, _CLIPPED, 0.5)
        allowed = of_steps * steps + _OF_SCALES * found.abs()
        wrong.append(at[~((found - expected).abs() <= allowed).all(1)])
    found = torch.cat(wrong)
    return found if 2 * len(found) < len(module.weight) else None


def _best_fit(table: _Table, module: _Embedding) -> tuple[float, float]:
    """(by how much of their size some rows of `table` are off from those of `module` times the
    number that fits best, that number); infinite if they cannot be compared."""
    count, none = len(module.weight), (math.inf, 1.0)
    if table.width != module.embedding_dim or table.count < count:
        return none
    some = torch.linspace(0, count - 1, min(count, _ROWS_AT_ONCE), device="cpu").long()
    try:
        found, expected = table.rows(some).double(), module(some).double()
        factor = (found * expected).sum() / (expected * expected).sum()
        off = float((found - factor * expected).norm() / found.norm())
    except UNFIT:  # of a damaged file
        return none
    return none if math.isnan(off) else (off, float(factor))


def _rows_that_differ(
    table: _Table, module: _Embedding, at: torch.Tensor
) -> tuple[torch.Tensor, int]:
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
        return _Table(len(weights), width, None, partial(_rows, weights))
    scales = graph.constant(names["weight_scales"])
    group, linear = graph.integer(names["group_size"]), names.get("is_linear_weight")
    as_linear = linear is not None and bool(graph.plain(linear))

    def rows(at: torch.Tensor) -> torch.Tensor:
        packed, of_rows = _rows(weights, at), _rows(scales, at)
        each = torch.arange(len(at), device="cpu")
        return embedding_q4gsw(packed, of_rows, group, each, as_linear).to(of_rows.dtype)

    # Weights that an output layer shares may have more rows; a damaged file's have fewer.
    return _Table(min(len(weights), len(scales)), width, 4, rows)


def _rows(table: np.ndarray, at: torch.Tensor) -> torch.Tensor:
    """Those of a mapped `table`, which may be of some GB."""
    return torch.from_numpy(table[at.numpy()])


def _beside_delegates(program: Program) -> Iterator[_Table]:
    for plan, method in zip(program.root.execution_plan, program.methods.values(), strict=True):
        values = [value.val for value in plan.values]
        for call in method.instructions:
            if call.kind == "kernel" and is_lookup(call):
                with suppress(InputError, *UNFIT):  # of a form that is not read here, but may run
                    yield from _forms(table_of(program, values, call))


def _forms(table: RowTable) -> Iterator[_Table]:
    steps = partial(_steps, table) if table.bits and table.zero_points is None else None
    for swapped in (False, True) if table.bits == 4 else (False,):
        rows = partial(_looked_up, table, swapped)
        yield _Table(len(table), table.width, table.bits, rows, steps)


def _steps(table: RowTable, at: torch.Tensor) -> torch.Tensor:
    assert table.scales is not None
    scales = torch.from_numpy(table.scales[at.numpy()].astype(np.float32))
    return scales.abs().repeat_interleave(table.width // scales.shape[1], 1)


def _looked_up(table: RowTable, swapped: bool, at: torch.Tensor) -> torch.Tensor:
    """`swapped`: each byte's halves are the other way round, as `NibbleEmbedding` has them."""
    rows = torch.from_numpy(table.rows(at.numpy()))
    return rows.unflatten(-1, (-1, 2)).flip(-1).flatten(-2) if swapped else rows
