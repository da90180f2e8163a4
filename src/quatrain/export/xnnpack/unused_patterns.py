"""Skips graph patterns that ExecuTorch's compiler searches in every lowering for XNNPACK, and that
no backbone has.

It uses internals of ExecuTorch in the way of `quatrain.export.lowering.executorch_internals`: a
changed internal raises `QuatrainError`, and everything is restored at the end.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from quatrain.executorch_wheel import changed
from quatrain.export.lowering.compiler_shortcuts import replaced

try:
    from executorch.backends.xnnpack.partition.graphs import bilinear_2d, sdpa
except ImportError as error:
    raise changed("executorch", "XNNPACK's pattern graphs", error, "to find them") from error


@contextmanager
def without_unused_patterns() -> Iterator[None]:
    """Leave out an interpolation and torch's own attention, which no backbone's part has: XNNPACK's
    passes compile both in every process. Also a decorator."""
    with (
        replaced("executorch", bilinear_2d, "get_graphs_dict", lambda _: dict),
        replaced("executorch", sdpa, "get_graphs", lambda _: list),
    ):
        yield
