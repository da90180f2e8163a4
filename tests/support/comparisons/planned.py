"""Programs held against what was planned of them."""

from pathlib import Path

import pytest

from quatrain.checkpoint.open import open_checkpoint
from quatrain.export import ExportReport
from quatrain.export.plan.programs import programs_of
from quatrain.export.plan.weightless import weightless_checkpoint


def assert_as_planned(report: ExportReport, checkpoint: Path) -> None:
    """The program of `report` is as large as its checkpoint's headers said, within 1 %."""
    (planned,) = programs_of(weightless_checkpoint(open_checkpoint(checkpoint)), [report.options])
    assert planned.refused is None and planned.predicted_bytes is not None
    assert planned.predicted_bytes.file == pytest.approx(report.bytes, rel=0.01)
    assert planned.max_seq_len == report.max_seq_len
