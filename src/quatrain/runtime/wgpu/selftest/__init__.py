"""Every kernel against float64 on the CPU: `quatrain selftest`, and tests/kernels."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

from quatrain.errors import InputError, QuatrainError
from quatrain.runtime.wgpu.device import Gpu
from quatrain.runtime.wgpu.selftest.attention_cases import attention_cases
from quatrain.runtime.wgpu.selftest.bench import TOLERANCE, Case, run_case
from quatrain.runtime.wgpu.selftest.linear_cases import linear_cases
from quatrain.runtime.wgpu.selftest.movement_cases import movement_cases
from quatrain.runtime.wgpu.selftest.pointwise_cases import pointwise_cases
from quatrain.runtime.wgpu.selftest.row_cases import row_cases
from quatrain.stages import Stages

__all__ = ["TOLERANCE", "Case", "KernelResult", "all_cases", "run_case", "run_selftest"]


@dataclass
class KernelResult:
    """What the cases of one kernel in one storage type gave; `failures` lists the wrong ones."""

    kernel: str
    dtype: str
    allowed: float
    cases: int = 0
    worst: float = 0.0
    failures: list[str] = field(default_factory=list)


def all_cases(dtype: str) -> Iterator[Case]:
    """All cases for the storage type `dtype`: f32 or f16."""
    cases = (linear_cases, row_cases, attention_cases, pointwise_cases, movement_cases)
    return chain.from_iterable(make(dtype) for make in cases)


def run_selftest(gpu: Gpu, name: str = "", stages: Stages | None = None) -> list[KernelResult]:
    """Run the cases of the kernels whose name contains `name`, in fp16 where the GPU offers it.

    A kernel that the driver refuses counts as wrong. Raises `InputError` where no kernel is
    called so.
    """
    dtypes = [dtype for dtype in TOLERANCE if dtype != "f16" or gpu.info.fp16]
    cases = [case for dtype in dtypes for case in all_cases(dtype) if name in case.kernel]
    if not cases:
        known = sorted({case.kernel for case in all_cases("f32")})
        raise InputError(f"no kernel is called {name!r}; there are: {', '.join(known)}")
    results: dict[tuple[str, str], KernelResult] = {}
    with (stages or Stages())("run the kernels") as advance:
        for done, case in enumerate(cases):
            advance(done / len(cases))
            key, allowed = (case.kernel, case.dtype), TOLERANCE[case.dtype]
            result = results.setdefault(key, KernelResult(*key, allowed))
            result.cases += 1
            try:
                error = run_case(gpu, case)
            except QuatrainError as refused:
                result.failures.append(f"{case} ({refused})")
                continue
            result.worst = max(result.worst, error)
            if not error < allowed:
                result.failures.append(str(case))
    return list(results.values())
