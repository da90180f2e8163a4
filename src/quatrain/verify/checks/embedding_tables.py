"""Compares a program's embedding tables with the checkpoint's, row by row, because prompts read
only few rows."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from quatrain.backbone.model import Backbone
from quatrain.checkpoint.layout import EMBEDDING
from quatrain.errors import UNFIT
from quatrain.linear.embedding import QuantizedGroupEmbedding
from quatrain.program import Program, VulkanGraph
from quatrain.verify.checks.packed_constants import PackedCheck
from quatrain.verify.checks.stored_tables import RoundedEmbedding, StoredTable, stored_tables

_ROWS_AT_ONCE = 256  # of 7,680 numbers, in the processor's cache
# Of a row's largest magnitude, what float32 and float16 may be off by; and of any, 128 of float16's
# smallest steps: half of one in a scale, times an int8.
_FLOAT32, _FLOAT16, _STEPS = 1e-5, 2e-3, 2.0**-17
_UNRELATED = 0.5  # of a row's length, what no other rounding of the same model is off by
_CLIPPED = 2.0  # by how many steps a number may be beyond the last integer
_OF_SCALES = 2.0**-8  # of a number that is rounded to integers, what it is off by besides: bfloat16

_Embedding = nn.Embedding | QuantizedGroupEmbedding


@dataclass(frozen=True)
class _Fit:
    """How `table` fits an embedding: by how much of their size some of its rows are `off` from the
    embedding's times `factor`, the number that fits best."""

    table: StoredTable
    off: float
    factor: float


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
    to the nearest integers they are right, and `backbone` is given the same, a `RoundedEmbedding`,
    as it is of rows that a program for XNNPACK gives in float16. Rounded otherwise, or multiplied
    by what a model multiplies its embeddings by, the logits tell.
    """
    tables = stored_tables(program, graph)
    checks, unknown = [], []
    for name, module in list(backbone.named_modules()):
        if isinstance(module, _Embedding):
            fit = _most_like(tables, module)
            folded = _embedding_factor(backbone, name)
            wrong = None if fit is None else _wrong_rows(fit, module, strict, folded, advance)
            if isinstance(wrong, StoredTable):
                table, wrong = wrong, not_nearest(wrong, module)
                if wrong is not None:
                    backbone.set_submodule(name, RoundedEmbedding(table, table.bits))
            elif not strict and not graph and fit and wrong is not None and fit.table.is_half:
                backbone.set_submodule(name, RoundedEmbedding(fit.table, None))
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
    fit: _Fit,
    module: _Embedding,
    strict: bool,
    folded: float | None,
    advance: Callable[[float], None],
) -> torch.Tensor | StoredTable | None:
    """The rows, int64 [n], in which the table that is most like `module` differs from it; if
    most do, and, unless `strict`, its form may be why, that table if it is rounded to other bits,
    and None if all rows are `folded` times the checkpoint's, or unlike them."""
    closest, off, factor = fit.table, fit.off, fit.factor
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
def not_nearest(table: StoredTable, module: _Embedding) -> torch.Tensor | None:
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


def _most_like(tables: list[StoredTable], module: _Embedding) -> _Fit | None:
    fits = filter(None, (_best_fit(table, module) for table in tables))
    return min(fits, key=lambda fit: fit.off, default=None)


def _best_fit(table: StoredTable, module: _Embedding) -> _Fit | None:
    """None if they cannot be compared."""
    count = len(module.weight)
    if table.width != module.embedding_dim or table.count < count:
        return None
    some = torch.linspace(0, count - 1, min(count, _ROWS_AT_ONCE), device="cpu").long()
    try:
        found, expected = table.rows(some).double(), module(some).double()
        factor = (found * expected).sum() / (expected * expected).sum()
        off = float((found - factor * expected).norm() / found.norm())
    except UNFIT:  # of a damaged file
        return None
    return _Fit(table, off, float(factor)) if math.isfinite(off) else None


def _rows_that_differ(
    table: StoredTable, module: _Embedding, at: torch.Tensor
) -> tuple[torch.Tensor, int]:
    """(the rows that differ, int64 [n]; how many are not all zeros) of those `at` int64 [N]"""
    expected, found = module(at).float(), table.rows(at)
    largest = expected.abs().amax(1)
    exact = found.dtype == torch.float32
    allowed = largest * _FLOAT32 if exact else (largest * _FLOAT16).clamp(min=_STEPS)
    differs = ~((found.float() - expected).abs().amax(1) <= allowed)
    return at[differs], int((largest > 0).sum())
