"""What the doctor says about a CPU program, whose delegates are XNNPACK's."""

from collections import Counter
from dataclasses import dataclass, field

from quatrain.program import Program
from quatrain.program.kept_state import may_go_on
from quatrain.program.xnnpack_delegate import XNNPACK_BACKEND
from quatrain.targets.catalogue import release
from quatrain.targets.triggers.method_triggers import caches_of_each_method

GATED_DELTA_RULE = "llama.gated_delta_rule"
# In every ExecuTorch runtime: kernels/prim_ops/register_prim_ops.cpp.
_BUILT_IN = ("executorch_prim", "aten.sym_size", "aten.sym_numel", "aten._local_scalar_dense")
# The release that an operator came with; the others that our programs call are in every one of
# which something is known.
SINCE = {GATED_DELTA_RULE: "1.5"}
_NOT_KNOWN = (
    "No catalogue of XNNPACK's defects is kept: which releases of ExecuTorch run these delegates, "
    "and on which CPUs, was not checked. Run the program here: quatrain verify MODEL.PTE CHECKPOINT"
)
_STATE = (
    "forward keeps state of a text other than a KV cache, such as a convolution's. Unless it "
    "begins anew at position 0, which quatrain verify says, an app must load the program again for "
    "each text: ExecuTorch's runner leaves that state there (reset)"
)


@dataclass(frozen=True)
class CpuExamination:
    """What a program for the CPU asks of an app.

    Attributes:
        backend: The backend that must be linked: XnnpackBackend.
        delegates: How many calls go to it.
        operators: Those outside that are not part of every runtime, with how often each is called:
            the app must link their kernels.
        lacking: Those that the release which was asked about does not have, a sentence each.
        wrong: What is computed wrongly, and in which calls, a sentence each.
        notes: What an app should know of its calls, a sentence each.
        not_known: What was not checked, a sentence.
    """

    backend: str
    delegates: int
    operators: dict[str, int] = field(default_factory=dict)
    lacking: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    not_known: str = _NOT_KNOWN


def lacking_on_cpu(operator: str, runtime: str | None) -> str | None:
    """Says that the release `runtime` lacks `operator`, where it does."""
    since = SINCE.get(operator)
    if runtime is None or since is None or release(since) <= release(runtime):
        return None
    return f"runtime {runtime} lacks {operator}, which came with {since}"


def examine_for_cpu(program: Program, runtime: str | None = None) -> CpuExamination | None:
    """What `program` asks of an app with that release; None if not all its delegates are
    XNNPACK's."""
    if {delegate.backend for delegate in program.delegates} != {XNNPACK_BACKEND}:
        return None
    called = Counter(
        str(step.target)
        for method in program.methods.values()
        for step in method.instructions
        if step.kind == "kernel" and not str(step.target).startswith(_BUILT_IN)
    )
    kinds = dict.fromkeys(name.rpartition(".")[0] for name in sorted(called))
    lacking = [said for kind in kinds if (said := lacking_on_cpu(kind, runtime))]
    return CpuExamination(
        XNNPACK_BACKEND,
        len(program.delegates),
        dict(sorted(called.items())),
        lacking,
        [
            f"{found.where} have a KV cache each: where a text takes turns in them, one does not "
            "see what another wrote. Call one alone, or export one for prompts and steps"
            for found in caches_of_each_method(program)
            if found.certainty != "possible"
        ],
        [_STATE] if may_go_on(program) else [],
    )
