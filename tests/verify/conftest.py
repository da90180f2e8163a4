"""A tiny int4 checkpoint, and its programs, made once for all tests of this folder."""

from pathlib import Path

import pytest
from tests.support.made_once import made_once
from tests.support.tiny_programs import Tiny, tiny_in, write_tiny

from quatrain.export import ExportOptions, export_checkpoint


@pytest.fixture(scope="session")
def tiny(shared: Path) -> Tiny:
    return tiny_in(made_once(shared / "tiny", write_tiny))


@pytest.fixture(scope="session")
def tiny_xnnpack(tiny: Tiny, shared: Path) -> Path:
    """The same checkpoint's XNNPACK program, 8da4w."""

    def export(folder: Path) -> None:
        export_checkpoint(tiny.checkpoint, folder / "model.pte", ExportOptions(backend="xnnpack"))

    return made_once(shared / "tiny-xnnpack", export) / "model.pte"
