"""SmolLM2-135M, quantized, and its programs: made once for a whole run of the suite."""

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


class SmolLM2:
    """Everything is in folders of `shared`, made when first asked for."""

    def __init__(self, shared: Path) -> None:
        self._shared = shared

    @property
    def checkpoint(self) -> Path:
        """The int4 checkpoint, group 32, int4 embedding."""

        def quantize(folder: Path) -> None:
            with users_cache():
                model = fetch_smollm2()
            quantize_model(model, folder, embedding="int4", method="rtn")

        return made_once(self._shared / "smollm2", quantize)

    def program(self, name: str) -> Path:
        """The checkpoint's program of that name in PROGRAMS."""

        def export(folder: Path) -> None:
            export_checkpoint(self.checkpoint, folder / "model.pte", PROGRAMS[name])

        return made_once(self._shared / f"smollm2-{name}", export) / "model.pte"
