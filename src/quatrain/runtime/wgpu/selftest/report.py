"""What a self-test found."""

from dataclasses import asdict, dataclass, field
from typing import Any

from quatrain.runtime.wgpu.adapters import AdapterInfo


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
