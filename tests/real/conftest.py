"""SmolLM2-135M, quantized and exported once for all tests of this folder."""

from pathlib import Path

import pytest
from filelock import FileLock

from quatrain.export import ExportOptions, export_checkpoint
from quatrain.quantize.pipeline import quantize_model
from quatrain.smollm2 import fetch_smollm2


@pytest.fixture(scope="session")
def smollm2_checkpoint(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The int4 checkpoint, group 32, int4 embedding."""
    folder = _shared(tmp_path_factory, worker_id)
    with FileLock(folder / "lock"):
        if not (folder / "checkpoint").exists():
            quantize_model(fetch_smollm2(), folder / "checkpoint", embedding="int4")
    return folder / "checkpoint"


@pytest.fixture(scope="session")
def smollm2_programs(smollm2_checkpoint: Path) -> "Programs":
    """That checkpoint's programs, by their names in PROGRAMS."""
    return Programs(smollm2_checkpoint)


PROGRAMS = {
    "8da4w": ExportOptions(max_seq_len=512),
    "weight-only": ExportOptions(scheme="weight-only", max_seq_len=512),
    "8da4w-xnnpack": ExportOptions(backend="xnnpack", max_seq_len=512),
}


class Programs:
    """The path of each of PROGRAMS, exported the first time it is asked for."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint

    def __getitem__(self, name: str) -> Path:
        path = self.checkpoint.parent / f"{name}.pte"
        with FileLock(self.checkpoint.parent / "lock"):
            if not path.exists():
                export_checkpoint(self.checkpoint, path, PROGRAMS[name])
        return path


def _shared(factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all workers of this run share; whoever comes first fills it."""
    base = factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "smollm2"
    folder.mkdir(exist_ok=True)
    return folder
