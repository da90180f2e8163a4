"""Every kernel against float64 on the CPU: `quatrain selftest`, and tests/runtime/wgpu."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

from quatrain.errors import InputError, QuatrainError
from quatrain.runtime.wgpu.adapters import AdapterInfo
from quatrain.runtime.wgpu.device import Gpu
from quatrain.runtime.wgpu.selftest.attention_cases import attention_cases
from quatrain.runtime.wgpu.selftest.bench import TOLERANCE, Case, run_case
from quatrain.runtime.wgpu.selftest.linear_cases import linear_cases
from quatrain.runtime.wgpu.selftest.movement_cases import movement_cases
from quatrain.runtime.wgpu.selftest.pointwise_cases import pointwise_cases
from quatrain.runtime.wgpu.selftest.row_cases import row_cases
from quatrain.runtime.wgpu.selftest.sum_cases import sum_cases
from quatrain.stages import Stages

__all__ = ["TOLERANCE", "Case", "SelftestReport", "all_cases", "run_case", "run_selftest"]


@dataclass
class KernelResult:
    """What the cases of one kernel in one storage type gave; `failures` lists the wrong ones."""

    kernel: str
    dtype: str
    allowed: float
    cases: int = 0
    worst: float = 0.0
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SelftestReport:
    """What the kernels of a GPU gave."""

    adapter: AdapterInfo
    kernels: list[KernelResult]

    @property
    def failures(self) -> list[str]:
        """The cases that are wrong, of all kernels."""
        return [case for result in self.kernels for case in result.failures]

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for JSON."""
        kernels = [asdict(result) for result in self.kernels]
        return {"adapter": self.adapter.name, "kernels": kernels, "passed": not self.failures}


def all_cases(dtype: str) -> Iterator[Case]:
    """All cases for the storage type `dtype`: f32 or f16."""
    cases = (
        linear_cases, row_cases, attention_cases, pointwise_cases, movement_cases, sum_cases
    )  # fmt: skip
    return chain.from_iterable(make(dtype) for make in cases)


def run_selftest(
    adapter: str | None = None, kernel: str = "", stages: Stages | None = None
) -> SelftestReport:
    """Run the cases of the kernels whose name contains `kernel` on a GPU, also in fp16 if it
    supports it.

    `adapter` as in `pick_adapter`. A kernel that the driver refuses counts as wrong. Raises
    `InputError` if no kernel has such a name, and as `pick_adapter`.
    """
    gpu = Gpu(adapter)
    dtypes = [dtype for dtype in TOLERANCE if dtype != "f16" or gpu.info.fp16]
    cases = [case for dtype in dtypes for case in all_cases(dtype) if kernel in case.kernel]
    if not cases:
        known = sorted({case.kernel for case in all_cases("f32")})
        raise InputError(
            f"--kernel {kernel}: no kernel has that in its name; there are: {', '.join(known)}"
        )
    results: dict[tuple[str, str], KernelResult] = {}
    with (stages or Stages())("run the kernels") as advance:
        for done, case in enumerate(cases):
            advance(done / len(cases))
            key, allowed = (case.kernel, case.dtype), TOLERANCE[case.dtype]
            _run_case(gpu, case, results.setdefault(key, KernelResult(*key, allowed)))
    return SelftestReport(gpu.info, list(results.values()))


def _run_case(gpu: Gpu, case: Case, result: KernelResult) -> None:
    result.cases += 1
    try:
        error = run_case(gpu, case)
    except QuatrainError as refused:
        result.failures.append(f"{case} ({refused})")
        return
    result.worst = max(result.worst, error)
    if not error < result.allowed:
        result.failures.append(str(case))
