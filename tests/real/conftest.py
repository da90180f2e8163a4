"""SmolLM2-135M, quantized and exported once for all tests of this folder."""

from pathlib import Path

import pytest

from quatrain.export import ExportOptions, export_checkpoint
from quatrain.quantize import quantize_model
from quatrain.smollm2 import fetch_smollm2


@pytest.fixture(scope="session")
def smollm2_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The int4 checkpoint, group 32, int4 embedding."""
    folder = tmp_path_factory.mktemp("smollm2") / "checkpoint"
    quantize_model(fetch_smollm2(), folder, embedding="int4")
    return folder


@pytest.fixture(scope="session")
def smollm2_programs(smollm2_checkpoint: Path) -> dict[str, Path]:
    """The Vulkan programs of that checkpoint by scheme, context 512."""
    programs = {}
    for scheme in ("8da4w", "weight-only"):
        programs[scheme] = smollm2_checkpoint.parent / f"{scheme}.pte"
        options = ExportOptions(scheme=scheme, max_seq_len=512)
        export_checkpoint(smollm2_checkpoint, programs[scheme], options)
    return programs
