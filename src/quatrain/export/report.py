"""The result of an export."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from quatrain.export.kernels.assignment import LinearRow
from quatrain.export.options import ExportOptions


@dataclass(frozen=True)
class ExportReport:
    """The result of an export.

    Attributes:
        output: The program's path.
        options: The options of the export.
        max_seq_len: The program's context length in tokens.
        prefill_chunk_size: The most tokens in one call; a longer prompt is read in parts.
        bytes: The program's size.
        linears: For each linear its name and the kernel that computes it.
        seconds: Wall time by stage.
        peak_rss_bytes: The largest memory use of the process so far.
        tokenizer_files: The tokenizer files beside the program.
        notes: Complete sentences about what the program stores or computes differently from the
            checkpoint.
    """

    output: Path
    options: ExportOptions
    max_seq_len: int
    prefill_chunk_size: int
    bytes: int
    linears: list[LinearRow]
    seconds: dict[str, float]
    peak_rss_bytes: int
    tokenizer_files: list[Path]
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for JSON."""
        return asdict(self)
