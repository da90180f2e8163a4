"""The worked example, with less training: speech right without the defect, garbled with it."""

import json
import subprocess
import sys

import pytest
from tests.support.paths import EXAMPLES


@pytest.mark.thorough
def test_weight_only_speaks_where_the_driver_garbles_8da4w(tmp_path):
    pytest.importorskip("matplotlib", reason="the example draws a plot")
    options = ["--output", str(tmp_path), "--steps", "220", "--texts", "4"]
    subprocess.run([sys.executable, str(EXAMPLES / "tiso" / "main.py"), *options], check=True)
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results) == 4
    for name, result in results.items():
        garbled = name == "8da4w, with the defect"
        assert (result["right"] < 0.2) if garbled else (result["right"] > 0.8), name
    assert results["weight-only, with the defect"] == results["weight-only, sound driver"]
    assert (tmp_path / "tiso.png").stat().st_size > 10_000
