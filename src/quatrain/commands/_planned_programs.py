"""How `plan` and `quantize` print the programs that export would write."""

from typing import TYPE_CHECKING

from quatrain.human_bytes import human_bytes

if TYPE_CHECKING:
    from quatrain.export.plan.programs import ProgramPlan


def print_programs(programs: "list[ProgramPlan]") -> None:
    """Print a line for each program: its size and memory, or why it is refused."""
    print(f"{'program':<28}{'context':>8}{'file':>12}{'memory':>12}")
    for program in programs:
        name = f"{program.scheme} {program.backend} {program.activation_dtype}"
        if program.bytes is None:
            print(f"{name:<28}{program.max_seq_len:>8}  refused: {program.refused}")
            continue
        file, memory = human_bytes(program.bytes.file), human_bytes(program.bytes.memory)
        print(f"{name:<28}{program.max_seq_len:>8}{file:>12}{memory:>12}")
