"""What the runtimes of Vulkan programs here ask of a program: that it is one delegate call."""

from quatrain.errors import InputError
from quatrain.program import Program


def require_only_delegate(program: Program, runtime: str) -> None:
    """Refuse, for `runtime`, a program that does work outside its only Vulkan delegate."""
    if not program.vulkan.outputs:
        raise InputError(f"{program.path}: its delegate has no outputs")
    instructions = [
        instruction for method in program.methods.values() for instruction in method.instructions
    ]
    outside = sorted({str(each.target) for each in instructions if each.kind == "kernel"})
    if outside or len(instructions) != 1:
        found = ", ".join(outside) or f"{len(instructions)} instructions"
        raise InputError(
            f"{program.path}: does work outside its Vulkan delegate ({found}); the {runtime} "
            "runs programs that are one delegate call"
        )
