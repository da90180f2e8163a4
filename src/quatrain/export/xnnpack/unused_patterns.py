"""Graphs that ExecuTorch's compiler looks for in every lowering for XNNPACK, and never finds.

Private to ExecuTorch, as `quatrain.export.lowering.executorch_internals` has it: what is found
changed is refused with a `QuatrainError`, and all is put back.
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
