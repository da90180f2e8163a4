"""What the runtimes of Vulkan programs here ask of a program: that it is one delegate call, ahead
of which at most rows of a table are looked up."""

from quatrain.errors import InputError
from quatrain.program import Program
from quatrain.program.row_lookup import work_beside_delegate


def require_only_delegate(program: Program, runtime: str) -> None:
    """Refuse, for `runtime`, a program that does work outside its only Vulkan delegate."""
    if not program.vulkan.outputs:
        raise InputError(f"{program.path}: its delegate has no outputs")
    outside = work_beside_delegate(program)
    calls = [each for each in program.instructions if each.kind != "kernel"]
    if outside or len(calls) != 1:
        found = ", ".join(sorted(outside)) or f"{len(program.instructions)} instructions"
        raise InputError(
            f"{program.path}: does work outside its Vulkan delegate ({found}); the {runtime} "
            "runs programs that are one delegate call"
        )


def input_places(program: Program) -> list[int]:
    """For each input of the only delegate's graph its place among the method's inputs, whose order
    may be another: whoever exported it may have read the position first."""
    graph = program.vulkan
    plan, *_ = [plan for plan in program.root.execution_plan or () if plan.delegates]
    (call,) = [each for each in program.instructions if each.kind == "delegate"]
    taken: list[int] = list(plan.inputs or ())
    given = call.args[: len(graph.inputs)]
    if not set(given) <= set(taken):
        raise InputError(
            f"{program.path}: its delegate is given values that are no inputs of its method; "
            "export it so that the method is one delegate call"
        )
    return [taken.index(value) for value in given]


def method_outputs(program: Program) -> list[int]:
    """The values of the only delegate's graph in the order in which the method returns them, which
    may be another than the delegate's, and leave some out."""
    graph = program.vulkan
    plans = [plan for plan in program.root.execution_plan or () if plan.delegates]
    (call,) = [each for each in program.instructions if each.kind == "delegate"]
    written = call.args[len(call.args) - len(graph.outputs) :]
    value_of = dict(zip(written, graph.outputs, strict=False))
    returned = [value_of[i] for plan in plans for i in plan.outputs or () if i in value_of]
    return returned or list(graph.outputs)
