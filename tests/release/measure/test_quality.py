"""The figures of a release: as evaluate has them, of the whole text, and of this machine."""

import json
import math
import os
import shutil
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
import tokenizers
from tests.support.releases import copied, release_again, report_of

from quatrain.release.measure import speed
from quatrain.release.measure.float_reference import first_difference
from quatrain.release.measure.quality import measure_quality
from quatrain.release.tasks import functions
from quatrain.tokenizer import Tokenizer
from quatrain.verify.evaluate.evaluate import evaluate_models


def test_the_quality_is_what_evaluate_says(tiny_release: Path) -> None:
    text = (tiny_release / "text.txt").read_text()
    for file in report_of(tiny_release)["files"]:
        models = [tiny_release / "reference", tiny_release / "out" / file["file"]]
        device = "reference" if file["backend"] == "vulkan" else "executorch"
        words = tiny_release / "out" / "tokenizer.json"
        _, found = evaluate_models(models, text, 40, device, tokenizer=words)
        wanted = [found] if found.decode is None else [found, found.decode]
        assert [row["regime"] for row in file["quality"]] == [one.regime for one in wanted]
        for row, one in zip(file["quality"], wanted, strict=True):
            assert row["perplexity"] == pytest.approx(one.perplexity, rel=1e-5)
            assert row["ratio"] == pytest.approx(one.perplexity_ratio, rel=1e-5)
            assert row["ratio_error"] == pytest.approx(one.perplexity_ratio_error, rel=1e-4)
            assert row["reference_perplexity"] * row["ratio"] == pytest.approx(row["perplexity"])
            # evaluate counts the last token, which has no successor, too.
            assert row["kl"] == pytest.approx(one.against_first.kl, rel=0.1)


@pytest.mark.parametrize("begin", [["w1"], ["w1", "w2"]])
def test_the_quality_begins_each_chunk_as_a_text(
    tiny_release: Path, tmp_path: Path, begin: list[str]
) -> None:
    """As evaluate does, of a text longer than the context of 64; what begins it is not predicted,
    as it always does."""
    (program,) = [one for one in report_of(tiny_release)["files"] if one["backend"] == "vulkan"]
    shutil.copy(tiny_release / "out" / program["file"], tmp_path / "model.pte")
    words = tokenizers.Tokenizer.from_file(str(tiny_release / "out" / "tokenizer.json"))
    words.post_processor = tokenizers.processors.TemplateProcessing(
        single=[*begin, "$A"], special_tokens=[(word, int(word[1:])) for word in begin]
    )
    words.save(str(tmp_path / "model.tokenizer.json"))
    text = " ".join(f"w{(7 * i) % 96}" for i in range(150))
    found = measure_quality(tmp_path / "model.pte", None, text, 150, [None], [])["rows"]
    (wanted,) = evaluate_models([tmp_path / "model.pte"], text, 150, "reference")
    assert wanted.predicted == 150 - len(begin)
    assert found[0]["tokens"] == wanted.predicted
    assert found[0]["perplexity"] == pytest.approx(wanted.perplexity, rel=1e-5)


def test_the_text_shown_has_the_divergence_that_is_averaged(tiny_release: Path) -> None:
    report = report_of(tiny_release)
    for file in report["files"]:
        shown = report["shown"][file["file"]]
        assert "".join(one["text"] for one in shown[:3]) == "w0w7w14"
        values = [one["kl"] for one in shown[1:]]
        assert mean(values) == pytest.approx(file["quality"][0]["kl"])
        error = stdev(values) / math.sqrt(len(values))
        assert error == pytest.approx(file["quality"][0]["kl_error"])


def test_speed_is_of_this_machine_and_its_runtime(
    tiny_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (tiny_release / "text.txt").read_text()
    programs = list((tiny_release / "out").glob(".work/export-*/model.pte"))
    (cpu,) = [one for one in programs if b"VulkanBackend" not in one.read_bytes()]
    (gpu,) = [one for one in programs if one != cpu]
    found = speed.measure_speed(cpu, text)
    assert found["device"] == "executorch" and f"{os.cpu_count()} cores" in found["machine"]
    assert (found["prompt_tokens"], found["new_tokens"]) == (32, 32)
    assert found["prompt"] > 0 and found["decode"] > 0
    monkeypatch.setattr(speed, "first_choice", lambda graph: ("reference", "none was found"))
    why = "this machine has no usable GPU: none was found"
    assert speed.measure_speed(gpu, text) == {"not_measured": why}


def test_figures_that_are_not_finite_are_null(
    tiny_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON has no word for them; the gates see them, and the pages say so."""

    def broken(*words: Any, **arguments: Any) -> dict:
        found = functions.quality(*words, **arguments)
        rows = [row | {"kl": math.nan, "ratio": math.inf} for row in found["rows"]]
        shown = [one | {"kl": one["kl"] and math.nan} for one in found["shown"]]
        return found | {"rows": rows, "shown": shown}

    copy = copied(tiny_release, tmp_path)
    monkeypatch.setitem(functions.FUNCTIONS, "quality", broken)
    made = release_again(copy, tokens=39)
    assert any("KL nan nats" in failure for failure in made.failures)
    for file in ("report.json", "expected.json", "manifest.json"):
        json.loads((copy / "out" / file).read_text(), parse_constant=pytest.fail)
    assert report_of(copy)["files"][0]["quality"][0]["kl"] is None
    assert "not finite ± " in (copy / "out" / "report.html").read_text()
    assert "| not finite ± " in (copy / "out" / "report.md").read_text()


def test_where_floating_point_would_have_ended_its_end_is_named(tmp_path: Path) -> None:
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    words.add_special_tokens(["</s>"])
    words.save(str(tmp_path / "tokenizer.json"))
    found = first_difference(Tokenizer.load(tmp_path / "tokenizer.json"), [0, 1], [0, 2])
    assert found is not None and (found["said"], found["instead"]) == (" b", "</s>")
