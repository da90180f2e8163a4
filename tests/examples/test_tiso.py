"""The worked example, with less training: speech right without the defect, garbled with it."""

import importlib.util
import json
import sys

import pytest
from tests.support.paths import EXAMPLES

EXAMPLE = EXAMPLES / "tiso"


def test_weight_only_speaks_where_the_driver_garbles_8da4w(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="the example draws a plot")
    monkeypatch.syspath_prepend(EXAMPLE)
    spec = importlib.util.spec_from_file_location("tiso_main", EXAMPLE / "main.py")
    main = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(main)
    results = main.main(["--output", str(tmp_path), "--steps", "220", "--texts", "4"])
    for name, result in results.items():
        garbled = name == "8da4w, with the defect"
        assert (result["right"] < 0.2) if garbled else (result["right"] > 0.8), name
    assert results["weight-only, with the defect"] == results["weight-only, sound driver"]
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert (tmp_path / "tiso.png").stat().st_size > 10_000
    for module in ("task", "train", "speak"):
        sys.modules.pop(module, None)
