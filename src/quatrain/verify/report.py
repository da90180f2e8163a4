"""The result of `verify_program`."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from quatrain.targets.doctor import Finding
from quatrain.verify.checks.layerwise import LayerwiseComparison
from quatrain.verify.checks.packed_constants import PackedCheck
from quatrain.verify.checks.parity import Parity
from quatrain.verify.checks.unrounded import UnroundedCheck


@dataclass(frozen=True)
class DeviceCheck:
    """What one device gave. `layerwise` is None if it shows no values between (ExecuTorch).
    `problems` are whole sentences; empty if the program is right."""

    device: str
    parity: Parity
    layerwise: LayerwiseComparison | None
    problems: list[str]


@dataclass(frozen=True)
class VerifyReport:
    """Whether a program computes what its checkpoint defines.

    Attributes:
        program: The program's path.
        checkpoint: The checkpoint's path.
        scheme: "8da4w", "weight-only", or "mixed" if its linears differ.
        packed: A check for each linear, embedding and other tensor that could be compared, and for
            the program's metadata.
        floor: How much rounding alone changes the logits.
        allowed_error: The largest allowed relative error of the logits.
        devices: The result of each device.
        seconds: Wall time by stage.
        notes: What a reader of the result should know.
        fatal: Known defects with which the program fails on every GPU, in the newest runtime.
        not_compared: What was not compared with the checkpoint, as phrases.
        tokens: The number of tokens of the longest text, including greedy ones.
        unrounded: The result of an XNNPACK program without rounding activations; None for
            a Vulkan program, and if a part of the program cannot be computed this way.
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
    unrounded: UnroundedCheck | None = None

    @property
    def problems(self) -> list[str]:
        """Every problem that was found, as sentences."""
        found = [f"{check.name}: {check.problem}" for check in self.packed if check.problem]
        found += [problem for check in self.devices for problem in check.problems]
        if self.unrounded is not None and self.unrounded.problem:
            found.append(self.unrounded.problem)
        return found + [str(finding) for finding in self.fatal]

    @property
    def passed(self) -> bool:
        """Whether no problem was found."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for JSON."""
        return asdict(self) | {
            "fatal": [finding.as_dict() for finding in self.fatal],
            "passed": self.passed,
        }
