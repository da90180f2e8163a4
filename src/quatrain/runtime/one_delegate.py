"""What the runtimes of Vulkan programs here ask of a program: that it is one delegate call."""

from quatrain.errors import InputError
from quatrain.program import Program


def require_only_delegate(program: Program, runtime: str) -> None:
    """Refuse, for `runtime`, a program that does work outside its only Vulkan delegate."""
    if not program.vulkan.outputs:
        raise InputError(f"{program.path}: its delegate has no outputs")
    outside = program.calls_outside_delegates()
    if outside or len(program.instructions) != 1:
        found = ", ".join(sorted(outside)) or f"{len(program.instructions)} instructions"
        raise InputError(
            f"{program.path}: does work outside its Vulkan delegate ({found}); the {runtime} "
            "runs programs that are one delegate call"
        )


def method_outputs(program: Program) -> list[int]:
    """The values of the only delegate's graph in the order in which the method returns them, which
    may be another than the delegate's, and leave some out."""
    graph = program.vulkan
    plans = [plan for plan in program.root.execution_plan or () if plan.delegates]
    (call,) = program.instructions
    written = call.args[len(call.args) - len(graph.outputs) :]
    value_of = dict(zip(written, graph.outputs, strict=False))
    returned = [value_of[i] for plan in plans for i in plan.outputs or () if i in value_of]
    return returned or list(graph.outputs)
