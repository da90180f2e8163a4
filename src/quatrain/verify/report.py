"""What `verify_program` found."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from quatrain.targets.doctor import Finding
from quatrain.verify.checks.layerwise import LayerwiseComparison
from quatrain.verify.checks.packed_constants import PackedCheck
from quatrain.verify.checks.parity import Parity


@dataclass(frozen=True)
class DeviceCheck:
    """What one device gave. `layerwise` is None where it shows no values between (ExecuTorch).
    `problems` are whole sentences; empty where the program is right."""

    device: str
    parity: Parity
    layerwise: LayerwiseComparison | None
    problems: list[str]


@dataclass(frozen=True)
class VerifyReport:
    """Whether a program computes what its checkpoint means.

    Attributes:
        program: The program's path.
        checkpoint: The checkpoint's path.
        scheme: "8da4w", "weight-only", or "mixed" where its linears differ.
        packed: A check for each linear, embedding and other tensor that could be compared, and for
            what the program states of itself.
        floor: How far rounding alone moves the logits.
        allowed_error: The relative error that the logits may have.
        devices: What each device gave.
        seconds: Wall time by stage.
        notes: What a reader of the verdict should know.
        fatal: Known defects by which the program fails on every GPU, in the newest runtime.
        not_compared: What was not held against the checkpoint; whole phrases.
        tokens: How many the longest text has, greedy ones too.
    """

    program: Path
    checkpoint: Path
    scheme: str
    packed: list[PackedCheck]
    floor: Parity
    allowed_error: float
    devices: list[DeviceCheck]
    seconds: dict[str, float]
    notes: list[str] = field(default_factory=list)
    fatal: list[Finding] = field(default_factory=list)
    not_compared: list[str] = field(default_factory=list)
    tokens: int = 0

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        problems = [p.problem for p in self.packed] + [d.problems for d in self.devices]
        return not self.fatal and not any(problems)

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for JSON."""
        return asdict(self) | {
            "fatal": [finding.as_dict() for finding in self.fatal],
            "passed": self.passed,
        }
