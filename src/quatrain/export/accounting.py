"""No silent fallback: what the finished program holds, held against what was planned."""

from pathlib import Path

from quatrain.errors import QuatrainError
from quatrain.export.kernels import LinearRow
from quatrain.export.options import ExportOptions
from quatrain.program import Program, open_program
from quatrain.program.linears import find_linears


def check_program(path: Path, rows: list[LinearRow], options: ExportOptions) -> None:
    """Read the program at `path` and find each linear of `rows` in the kernel it names.

    Raises `QuatrainError` naming the first linear that is elsewhere, and any operator that
    was left outside the Vulkan delegate.
    """
    program = open_program(path)
    if options.backend == "vulkan":
        _check_vulkan(program, rows)
    else:
        _check_xnnpack(program, rows)


def _check_vulkan(program: Program, rows: list[LinearRow]) -> None:
    instructions = program.methods["forward"].instructions
    outside = sorted({str(step.target) for step in instructions if step.kind == "kernel"})
    if outside or len(program.delegates) != 1:
        raise QuatrainError(
            f"the backbone became {len(program.delegates)} Vulkan delegates with "
            f"{', '.join(outside) or 'nothing'} between them, expected one delegate. "
            "This is a defect of Quatrain or a change in executorch; please report it."
        )
    found = {linear.name: linear for linear in find_linears(program.vulkan)}
    for row in rows:
        linear = found.pop(row.name, None)
        kernel = linear.kernel if linear else "no kernel"
        shape = (linear.out_features, linear.in_features) if linear else None
        if kernel != row.kernel or shape != (row.out_features, row.in_features):
            raise QuatrainError(
                f"{row.name}: became {kernel} {shape or ''}, expected {row.kernel} "
                f"({row.out_features}, {row.in_features})"
            )
    if found:
        raise QuatrainError(f"the program has linears that the backbone has not: {sorted(found)}")


def _check_xnnpack(program: Program, rows: list[LinearRow]) -> None:
    """Every linear is one delegate of its own, so their numbers agree."""
    backends = [delegate.backend for delegate in program.delegates]
    if backends != ["XnnpackBackend"] * len(rows):
        raise QuatrainError(
            f"{len(rows)} linears became {len(backends)} delegates of {sorted(set(backends))}, "
            "expected one XnnpackBackend delegate each"
        )
    products = [
        step.target
        for step in program.methods["forward"].instructions
        if step.kind == "kernel" and "mm" in str(step.target).split("::")[-1]
    ]
    if products:
        raise QuatrainError(f"matrix products were left outside the delegates: {products}")
