"""What `verify_program` found."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from quatrain.verify.layerwise import LayerwiseComparison
from quatrain.verify.packed_constants import PackedCheck
from quatrain.verify.parity import Parity


@dataclass(frozen=True)
class DeviceCheck:
    """What one device gave. `layerwise` is None where it shows no values between (ExecuTorch).
    `problems` are whole sentences; empty where the program is right."""

    device: str
    parity: Parity
    layerwise: LayerwiseComparison | None
    problems: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The check as plain data, ready for JSON, where the layerwise comparison is the "walk"."""
        return {
            "device": self.device,
            "parity": asdict(self.parity),
            "walk": None if self.layerwise is None else self.layerwise.as_dict(),
            "problems": self.problems,
        }


@dataclass(frozen=True)
class VerifyReport:
    """Whether a program computes what its checkpoint means.

    Attributes:
        program: The program's path.
        checkpoint: The checkpoint's path.
        scheme: "8da4w", "weight-only", or "mixed" where its linears differ.
        packed: A check for each int4 linear of a Vulkan program.
        floor: How far rounding alone moves the logits.
        allowed_error: The relative error that the logits may have.
        devices: What each device gave.
        seconds: Wall time by stage.
        note: What a reader of the verdict should know.
    """

    program: Path
    checkpoint: Path
    scheme: str
    packed: list[PackedCheck]
    floor: Parity
    allowed_error: float
    devices: list[DeviceCheck]
    seconds: dict[str, float]
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return not any(p.problem for p in self.packed) and not any(d.problems for d in self.devices)

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for JSON."""
        devices = [check.as_dict() for check in self.devices]
        return asdict(self) | {"devices": devices, "passed": self.passed}
