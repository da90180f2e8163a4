"""What an export made."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from quatrain.export.kernels.assignment import LinearRow
from quatrain.export.options import ExportOptions


@dataclass(frozen=True)
class ExportReport:
    """What an export made.

    Attributes:
        output: The program's path.
        options: What was asked for.
        max_seq_len: The program's context, in tokens.
        prefill_chunk_size: The most tokens of a call; a longer prompt is fed in parts.
        bytes: The program's size.
        linears: A row per linear: its name and the kernel that computes it.
        seconds: Wall time by stage.
        peak_rss_bytes: The most memory that the process has held so far.
        tokenizer_files: What was written beside the program.
        notes: In whole sentences, what the program stores or does otherwise than the checkpoint.
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
