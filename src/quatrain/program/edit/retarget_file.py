"""`retarget`, repairs and slimming, from one `.pte` file to another."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quatrain.atomic_files import whole_copies
from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.program.container import Program, open_program
from quatrain.program.edit.embedding_layout import repair_program
from quatrain.program.edit.group_strides import repair_group_strides
from quatrain.program.edit.resized_results import make_resized
from quatrain.program.edit.retarget import parse_scheme, retarget
from quatrain.program.edit.selection import Selection
from quatrain.program.edit.slim import Slimmed, slim
from quatrain.program.external_constants import external_constants
from quatrain.program.inspect.linears import Linear
from quatrain.program.writer import write_program
from quatrain.tokenizer.files import copies_for


@dataclass(frozen=True)
class RetargetReport:
    """What `retarget_file` did.

    Attributes:
        output: The program that it wrote.
        changed: The changed linears, in their old form.
        scheme: Their new scheme; None if no scheme was asked for.
        zero_point_dtype: The new type of their zero points, if one was asked for.
        repaired_embeddings: How many embeddings got another memory layout.
        repaired_sizes: How many operators were replaced whose results do not follow a call, or that
            the runtime does not load.
        repaired_linears: How many int4 linears got scales or sums of groups with the right stride.
        slimmed: What was removed; None if that was not asked for.
        bytes_in: The size of the program that it read.
        bytes_out: The size of the one that it wrote.
        external_constants: Those that the output needs and does not have: they are in a `.ptd`
            file beside the input.
        tokenizer_files: The copies that it wrote beside the output.
    """

    output: Path
    changed: list[Linear]
    scheme: Scheme | None
    zero_point_dtype: str | None
    repaired_embeddings: int
    repaired_sizes: int
    repaired_linears: int
    slimmed: Slimmed | None
    bytes_in: int
    bytes_out: int
    external_constants: list[str]
    tokenizer_files: list[Path]

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for JSON."""
        removed = self.slimmed or Slimmed(operators=0, constant_bytes=0)
        return {
            "output": self.output,
            "changed": [linear.name for linear in self.changed],
            "scheme": self.scheme,
            "zero_point_dtype": self.zero_point_dtype,
            "repaired_embeddings": self.repaired_embeddings,
            "repaired_sizes": self.repaired_sizes,
            "repaired_linears": self.repaired_linears,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "removed_operators": removed.operators,
            "removed_constant_bytes": removed.constant_bytes,
            "external_constants": self.external_constants,
            "tokenizer_files": self.tokenizer_files,
        }


def retarget_file(
    model: Path,
    output: Path,
    scheme: Scheme | str | None = None,
    selection: Selection | None = None,
    zero_point_dtype: str | None = None,
    slim_it: bool = False,
    repair: bool = False,
) -> RetargetReport:
    """Write the Vulkan program `model`, changed, to `output`, with a copy of its tokenizer's files.

    Args:
        model: A .pte file, ours or ExecuTorch's own.
        output: The file to write, whole or not at all.
        scheme: What to `retarget` linears to; None changes none.
        selection: Which linears.
        zero_point_dtype: Of the zero points of their activations.
        slim_it: Compute and store nothing twice.
        repair: Give embeddings the memory layout that their kernel reads, replace operators whose
            results keep the sizes of the longest call, and store scales and sums of groups with the
            stride that the kernel uses.

    Raises:
        InputError: As `parse_scheme`, before the program is opened, and as `retarget`; where
            there is nothing to `repair`; where the output cannot be written.
    """
    if scheme is not None:
        scheme = parse_scheme(scheme, zero_point_dtype)
    program = open_program(model)
    embeddings, sizes, linears = _repair(program) if repair else (0, 0, 0)
    changed = []
    if scheme is not None:
        changed = retarget(program, scheme, selection, zero_point_dtype)
    slimmed = slim(program) if slim_it else None
    copies = copies_for(output, model)
    with whole_copies(copies):
        write_program(program, output)
    return RetargetReport(
        output=output,
        changed=changed,
        scheme=scheme,
        zero_point_dtype=zero_point_dtype,
        repaired_embeddings=embeddings,
        repaired_sizes=sizes,
        repaired_linears=linears,
        slimmed=slimmed,
        bytes_in=len(program.data),
        bytes_out=output.stat().st_size,
        external_constants=external_constants(program),
        tokenizer_files=list(copies),
    )


def _repair(program: Program) -> tuple[int, int, int]:
    """How many embeddings were repaired, other operators, and int4 linears."""
    embeddings = repair_program(program)
    sizes = sum(make_resized(program, graph) for graph in program.graphs)
    linears = sum(repair_group_strides(program, graph) for graph in program.graphs)
    if not embeddings and not sizes and not linears:
        raise InputError(
            f"{program.path}: has nothing to repair: the kernel of each of its embeddings reads "
            "the memory layout that it has, all results follow a call's length, the runtime loads "
            "all conversions, and scales and sums of groups have the right stride; leave "
            "--repair out"
        )
    return embeddings, sizes, linears
