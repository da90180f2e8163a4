"""Models that people use, quantized, and their programs: made once for a whole run of the suite."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.downloads import users_cache
from tests.support.made_once import made_once

from quatrain.export import ExportOptions, export_checkpoint
from quatrain.quantize.pipeline import quantize_model
from quatrain.smollm2 import fetch_smollm2

PROGRAMS = {
    "8da4w": ExportOptions(max_seq_len=512),
    "weight-only": ExportOptions(scheme="weight-only", max_seq_len=512),
    "8da4w-xnnpack": ExportOptions(backend="xnnpack", max_seq_len=512),
}


@dataclass(frozen=True)
class RealModel:
    """Everything is in folders of `shared`, made when first asked for. `fetch` gives the model in
    floating point; its programs have so much `context`."""

    name: str
    fetch: Callable[[], Path]
    shared: Path
    context: int = 512

    @property
    def checkpoint(self) -> Path:
        """The int4 checkpoint, group 32, int4 embedding."""

        def quantize(folder: Path) -> None:
            quantize_model(self.fetch(), folder, embedding="int4", method="rtn")

        return made_once(self.shared / self.name, quantize)

    def program(self, name: str) -> Path:
        """The checkpoint's program of that name in PROGRAMS."""
        options = replace(PROGRAMS[name], max_seq_len=self.context)

        def export(folder: Path) -> None:
            export_checkpoint(self.checkpoint, folder / "model.pte", options)

        return made_once(self.shared / f"{self.name}-{name}", export) / "model.pte"


def smollm2_model(shared: Path) -> RealModel:
    """SmolLM2-135M, downloaded where the user's cache has it not."""

    def fetch() -> Path:
        with users_cache():
            return fetch_smollm2()

    return RealModel("smollm2", fetch, shared)
