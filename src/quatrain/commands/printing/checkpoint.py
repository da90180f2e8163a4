"""How `quantize` and `convert` print the checkpoint that they wrote, and, as `plan` does, the
programs that export would write of one."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quatrain.commands.printing.progress import shown_stages
from quatrain.commands.printing.results import print_next
from quatrain.human_bytes import human_bytes
from quatrain.int4 import Scheme

if TYPE_CHECKING:
    from quatrain.export.plan.programs import ProgramPlan
    from quatrain.quantize.report import QuantizeReport


def print_checkpoint(report: "QuantizeReport", details: list[str], read_from: str) -> None:
    """Print `details` between what every checkpoint has; `read_from`: what the source is called."""
    print(f"{report.output}: {report.tensors} tensors, group size {report.group_size}")
    print(f"  size      {human_bytes(report.bytes_in)} -> {human_bytes(report.bytes_out)}")
    for reason in report.why_larger:
        print(f"            {reason}")
    for line in details:
        print(line)
    if not report.tokenizer_files:
        print(f"  tokenizer none: the {read_from} came without a tokenizer that is read")
    for note in report.notes:
        print(f"  note: {note}")
    seconds = sum(report.seconds.values())
    print(f"  {seconds:.1f} s, peak memory {human_bytes(report.peak_rss_bytes)}")


def planned(checkpoint: Path, backend: str) -> "list[ProgramPlan]":
    """The programs that export would write of the checkpoint that was written for `backend`."""
    from quatrain.export.plan.plan import plan_programs

    backends = ("vulkan",) if backend == "vulkan" else None
    with shown_stages()("plan"):
        return plan_programs(checkpoint, backends=backends).programs


def print_programs_and_next(checkpoint: Path, programs: "Sequence[ProgramPlan]") -> None:
    """Print `programs`, which were planned of the checkpoint that was written, and how to go on to
    the first of them that is not refused."""
    print_programs(programs)
    made = [program for program in programs if program.refused is None]
    if not made:
        return
    options: list[str] = []
    if made[0].backend != "vulkan":
        options = ["--backend", made[0].backend]
    elif made[0].scheme == Scheme.WEIGHT_ONLY:
        options = ["--weight-only-linear"]
    print_next("export", checkpoint, "-o", Path(f"{checkpoint.absolute().name}.pte"), *options)


def print_programs(programs: "Sequence[ProgramPlan]") -> None:
    """Print a line for each program: its size and memory, or why it is refused."""
    print(f"{'program':<28}{'context':>8}{'file':>12}{'memory':>12}")
    for program in programs:
        name = f"{program.scheme} {program.backend} {program.activation_dtype}"
        if program.predicted_bytes is None:
            print(f"{name:<28}{program.max_seq_len:>8}  refused: {program.refused}")
            continue
        file, memory = (
            human_bytes(program.predicted_bytes.file),
            human_bytes(program.predicted_bytes.memory),
        )
        print(f"{name:<28}{program.max_seq_len:>8}{file:>12}{memory:>12}")
