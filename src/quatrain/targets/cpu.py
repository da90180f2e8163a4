"""What is known of a program for the CPU, whose delegates are XNNPACK's."""

from collections import Counter
from dataclasses import dataclass, field

from quatrain.program import Program

XNNPACK = "XnnpackBackend"
# In every ExecuTorch runtime: kernels/prim_ops/register_prim_ops.cpp.
_BUILT_IN = ("executorch_prim", "aten.sym_size", "aten.sym_numel", "aten._local_scalar_dense")
_NOT_KNOWN = (
    "No catalogue of XNNPACK's defects is kept: which releases of ExecuTorch run these delegates, "
    "and on which CPUs, was not checked. Run the program here: quatrain verify MODEL.PTE CHECKPOINT"
)


@dataclass(frozen=True)
class CpuExamination:
    """What a program for the CPU asks of an app.

    Attributes:
        backend: The backend that must be linked: XnnpackBackend.
        delegates: How many calls go to it.
        operators: Those outside that are not part of every runtime, with how often each is called:
            the app must link their kernels.
        not_known: What was not checked, a sentence.
    """

    backend: str
    delegates: int
    operators: dict[str, int] = field(default_factory=dict)
    not_known: str = _NOT_KNOWN


def examine_for_cpu(program: Program) -> CpuExamination | None:
    """What `program` asks of an app; None where not all its delegates are XNNPACK's."""
    if {delegate.backend for delegate in program.delegates} != {XNNPACK}:
        return None
    called = Counter(
        str(step.target)
        for method in program.methods.values()
        for step in method.instructions
        if step.kind == "kernel" and not str(step.target).startswith(_BUILT_IN)
    )
    return CpuExamination(XNNPACK, len(program.delegates), dict(sorted(called.items())))
