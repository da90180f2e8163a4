"""A release: what it consists of, that it is made once, and made again bit for bit."""

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tests.support.command_line import invoked
from tests.support.release_specs import merged_spec
from tests.support.release_speed import as_fast_each_time
from tests.support.thorough import thorough
from tests.support.tiny_models import write_meta
from typer.testing import Result

from quatrain.commands.release import release as release_verb
from quatrain.errors import InputError, Interrupted
from quatrain.quantize.pipeline import quantize_model
from quatrain.release.measure import speed
from quatrain.release.measure.quality import measure_quality
from quatrain.release.release import Release, make_release
from quatrain.release.tasks import functions
from quatrain.release.tasks.store import Store, Task, held_alone
from quatrain.release.tasks.workers import Workers, make_all
from quatrain.stages import Stages
from quatrain.verify.evaluate.evaluate import evaluate_models
from quatrain.verify.expected import read_expected


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _again(folder: Path, out: str = "out", **given) -> Release:
    spec = merged_spec(folder / "release.toml", given)
    return make_release(folder / "model", folder / out, spec)


def _report(folder: Path) -> dict:
    return json.loads((folder / "out" / "report.json").read_text())


@pytest.fixture
def nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words, **arguments) -> dict:
        raise AssertionError("made again")

    for kind in functions.FUNCTIONS:
        monkeypatch.setitem(functions.FUNCTIONS, kind, refuse)


def test_each_phone_has_its_file_and_those_alike_share_one(tiny_release: Path) -> None:
    phones = {phone["id"]: phone for phone in _report(tiny_release)["phones"]}
    assert phones["pixel-8"]["file"] == phones["pixel-8-pro"]["file"] == "tiny-8da4w-fp32.pte"
    assert phones["pixel-6"]["file"] == "tiny-cpu.pte"
    assert "no profile of its GPU, a Mali-G78" in phones["pixel-6"]["reasons"][0]
    assert not phones["pixel-8"]["hazards"]["1.3"]["fails"]
    failing = {one["hazard"] for one in phones["pixel-8"]["hazards"]["1.0"]["fails"]}
    assert "unknown-operator" in failing


def test_the_manifest_has_every_file_and_its_digest(tiny_release: Path) -> None:
    out = tiny_release / "out"
    manifest = json.loads((out / "manifest.json").read_text())
    files = {file.name for file in out.iterdir() if file.is_file()} - {"manifest.json"}
    assert set(manifest["files"]) == files
    for name, said in manifest["files"].items():
        assert said == {"bytes": (out / name).stat().st_size, "sha256": _sha256(out / name)}
    sources = {one["name"]: one["sha256"] for one in manifest["source"]}
    assert sources["model.safetensors"] == _sha256(tiny_release / "model" / "model.safetensors")
    assert manifest["licence"]["fields"] == {"license": "apache-2.0"}


def test_what_is_expected_is_of_these_files(tiny_release: Path) -> None:
    expected = read_expected(tiny_release / "out" / "expected.json")
    for name, program in expected.items():
        assert program.sha256 == _sha256(tiny_release / "out" / name)
        assert [one.prompt for one in program.prompts] == ["w5 w17 w40", "w22 w61"]
        assert all(one.chat and len(one.tokens) <= 6 for one in program.prompts)


def test_the_quality_is_what_evaluate_says(tiny_release: Path) -> None:
    text = (tiny_release / "text.txt").read_text()
    for file in _report(tiny_release)["files"]:
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
            # evaluate counts the last token, which has no successor, too.
            assert row["kl"] == pytest.approx(one.against_first.kl, rel=0.1)


def test_the_quality_begins_each_chunk_as_a_text(tiny_release: Path, tmp_path: Path) -> None:
    """As evaluate does, of a text longer than the context of 64."""
    (program,) = [one for one in _report(tiny_release)["files"] if one["backend"] == "vulkan"]
    shutil.copy(tiny_release / "out" / program["file"], tmp_path / "model.pte")
    words = tokenizers.Tokenizer.from_file(str(tiny_release / "out" / "tokenizer.json"))
    words.post_processor = tokenizers.processors.TemplateProcessing(
        single="w1 $A", special_tokens=[("w1", 1)]
    )
    words.save(str(tmp_path / "model.tokenizer.json"))
    text = " ".join(f"w{(7 * i) % 96}" for i in range(150))
    found = measure_quality(tmp_path / "model.pte", None, text, 150, [None], [])["rows"]
    (wanted,) = evaluate_models([tmp_path / "model.pte"], text, 150, "reference")
    assert wanted.predicted == 149
    assert found[0]["tokens"] == wanted.predicted
    assert found[0]["perplexity"] == pytest.approx(wanted.perplexity, rel=1e-5)


def test_the_text_shown_has_the_divergence_that_is_averaged(tiny_release: Path) -> None:
    report = _report(tiny_release)
    for file in report["files"]:
        shown = report["shown"][file["file"]]
        assert "".join(one["text"] for one in shown[:3]) == "w0w7w14"
        values = [one["kl"] for one in shown[1:]]
        assert sum(values) / len(values) == pytest.approx(file["quality"][0]["kl"])


@pytest.mark.usefixtures("nothing_is_made")
def test_a_second_run_does_nothing(tiny_release: Path) -> None:
    out = tiny_release / "out"
    before = {file: file.stat().st_mtime_ns for file in out.iterdir() if file.is_file()}
    assert _again(tiny_release).failures == []
    assert {file: file.stat().st_mtime_ns for file in out.iterdir() if file.is_file()} == before


def test_it_is_made_again_bit_for_bit(tiny_release: Path, tmp_path: Path) -> None:
    """From what the release says of itself, elsewhere, all that it is made of being elsewhere."""
    for of, to in (("model", "m"), ("reference", "r"), ("out", "sent")):
        shutil.copytree(tiny_release / of, tmp_path / to, ignore=shutil.ignore_patterns(".work"))
    toml = tmp_path / "sent" / "release.toml"
    assert str(tiny_release) not in toml.read_text()
    with pytest.raises(InputError, match=r"sha256:[0-9a-f]{64}, .* where it lies: --reference"):
        merged_spec(toml, {})
    spec = merged_spec(toml, {"reference": str(tmp_path / "r")})
    make_release(tmp_path / "m", tmp_path / "again", spec)
    _assert_same_files(tmp_path / "again", tiny_release / "out")


def test_another_speed_changes_no_file_that_ships(
    tiny_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only those that the manifest says tell it."""
    copy = _copy(tiny_release, tmp_path)
    _again(copy)
    before = {file.name: file.read_bytes() for file in (copy / "out").iterdir() if file.is_file()}
    shutil.rmtree(next((copy / "out" / ".work").glob("speed-*")))
    monkeypatch.setitem(functions.FUNCTIONS, "speed", lambda *_, **__: {"not_measured": "no time"})
    _again(copy)
    manifest = json.loads((copy / "out" / "manifest.json").read_text())
    assert manifest["tell_speed"] == ["report.html", "report.json", "report.md"]
    for name in set(manifest["files"]) - set(manifest["tell_speed"]):
        assert (copy / "out" / name).read_bytes() == before[name]
    assert "not measured: no time" in (copy / "out" / "report.html").read_text()


def test_speed_is_of_this_machine_and_its_runtime(
    tiny_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (tiny_release / "text.txt").read_text()
    programs = list((tiny_release / "out").glob(".work/export-*/model.pte"))
    (cpu,) = [one for one in programs if b"VulkanBackend" not in one.read_bytes()]
    (gpu,) = [one for one in programs if one != cpu]
    found = speed.measure_speed(cpu, text)
    assert found["runtime"] == "executorch" and f"{os.cpu_count()} cores" in found["machine"]
    assert (found["prompt_tokens"], found["new_tokens"]) == (32, 32)
    assert found["prompt"] > 0 and found["decode"] > 0
    monkeypatch.setattr(speed, "first_choice", lambda graph: ("reference", "none was found"))
    why = "no GPU is at hand here: none was found"
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

    copy = _copy(tiny_release, tmp_path)
    monkeypatch.setitem(functions.FUNCTIONS, "quality", broken)
    made = _again(copy, tokens=39)
    assert any("KL nan nats" in failure for failure in made.failures)
    for file in ("report.json", "expected.json", "manifest.json"):
        json.loads((copy / "out" / file).read_text(), parse_constant=pytest.fail)
    assert _report(copy)["files"][0]["quality"][0]["kl"] is None
    assert "not finite ± " in (copy / "out" / "report.html").read_text()
    assert "| not finite ± " in (copy / "out" / "report.md").read_text()


@pytest.fixture(scope="module")
def exported(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release with exports of its own, in this process: `not_exported_again` comes later."""
    out = tmp_path_factory.mktemp("exported") / "out"
    spec = merged_spec(tiny_release / "release.toml", {})
    with pytest.MonkeyPatch.context() as patch:  # this comes before what is patched for each test
        patch.setitem(functions.FUNCTIONS, "speed", as_fast_each_time)
        return make_release(tiny_release / "model", out, spec, 1).folder


@pytest.mark.parametrize("jobs", thorough([2]))
def test_in_processes_it_is_the_same(
    tiny_release: Path,
    exported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    jobs: int,
) -> None:
    monkeypatch.setitem(functions.FUNCTIONS, "export", functions.export)
    spec = merged_spec(tiny_release / "release.toml", {})
    make_release(tiny_release / "model", tmp_path / "out", spec, jobs)
    _assert_same_files(tmp_path / "out", exported)


def test_what_takes_long_says_how_far_it_is(tiny_release: Path) -> None:
    heard = json.loads((tiny_release / "progress.json").read_text())
    programs = [file["file"] for file in _report(tiny_release)["files"]]
    titles = ["verify {}", "what {} answers", "measure {}"]
    long = {title.format(one) for title in titles for one in programs} | {"measure the layers"}
    assert long <= heard.keys()
    for name in long:
        assert len(heard[name]) > 1 and heard[name] == sorted(heard[name])
        assert heard[name][-1] == pytest.approx(1.0)


def test_a_task_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(functions.FUNCTIONS, "expect", lambda folder, advance: advance(0.5) or {})
    heard: list[tuple[str, float]] = []
    stages = Stages(progress=lambda name, part, left: heard.append((name, part)))
    task = Task("expect", "what it answers", {}, {}, advances=True)
    make_all(Store(tmp_path), [task], Workers(1, 0), stages)
    assert heard == [("what it answers", 0.5)]


@pytest.mark.parametrize("working", thorough([2]))
def test_on_a_cluster_that_loses_a_machine_it_is_the_same(
    tiny_release: Path, exported: Path, tmp_path: Path, working: int
) -> None:
    """So many tasks are being made, one on each machine, when one of those is killed."""
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install quatrain[ray]")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    doomed = cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1)
    out = tmp_path / "out"

    def kill_when_both_work() -> None:
        while len(list(out.glob(".work/export-*.????????"))) < working:
            time.sleep(0.05)
        cluster.remove_node(doomed, allow_graceful=False)

    killer = threading.Thread(target=kill_when_both_work, daemon=True)
    killer.start()
    try:
        spec = merged_spec(tiny_release / "release.toml", {})
        make_release(tiny_release / "model", out, spec, ray=cluster.address)
        assert not killer.is_alive()
        assert sum(node["Alive"] for node in ray.nodes()) == 2
    finally:
        ray.shutdown()
        cluster.shutdown()
    _assert_same_files(out, exported)


def _assert_same_files(found: Path, expected: Path) -> None:
    for file in expected.iterdir():
        if file.is_file():
            assert (found / file.name).read_bytes() == file.read_bytes(), file.name


def test_interrupted_it_leaves_nothing_half_and_goes_on(
    tiny_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = merged_spec(tiny_release / "release.toml", {"phones": ("pixel-6",)})
    begun: list[str] = []

    def counted(kind: str, function: Callable) -> Callable:
        def call(*words, **arguments) -> dict:
            begun.append(kind)
            if begun.count("verify") == 1 and kind == "verify":
                raise KeyboardInterrupt
            return function(*words, **arguments)

        return call

    for kind, function in list(functions.FUNCTIONS.items()):
        monkeypatch.setitem(functions.FUNCTIONS, kind, counted(kind, function))
    with pytest.raises(KeyboardInterrupt):
        make_release(tiny_release / "model", tmp_path / "out", spec)
    assert [file.name for file in (tmp_path / "out").iterdir()] == [".work"]
    found = make_release(tiny_release / "model", tmp_path / "out", spec)
    assert (begun.count("export"), begun.count("verify")) == (1, 2)
    assert [file["file"] for file in found.report["files"]] == ["tiny-cpu.pte"]
    # What is damaged is made again; what is no longer asked for goes.
    (program,) = (tmp_path / "out" / ".work").glob("export-*/model.pte")
    program.write_bytes(b"other")
    again = make_release(tiny_release / "model", tmp_path / "out", spec)
    assert again.report == found.report
    assert not (tmp_path / "out" / "tiny-8da4w-fp32.pte").exists()


def _cli(folder: Path, *options: str) -> Result:
    words = ["release", str(folder / "model"), "-o", str(folder / "out")]
    spec = ["--spec", str(folder / "release.toml")]
    return invoked([*words, *spec, *options])


def test_a_gate_that_does_not_hold_is_the_exit_code(tiny_release: Path, tmp_path: Path) -> None:
    copy = _copy(tiny_release, tmp_path)
    done = _cli(copy, "--max-mb", "0.001", "--max-kl", "0.000001", "--no-hazards", "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert not found["passed"]
    failed = {(one["gate"], one["of"]) for one in found["gates"] if not one["passed"]}
    assert ("max-mb", "tiny-cpu.pte") in failed
    assert ("max-kl", "tiny-8da4w-fp32.pte (decode)") in failed
    assert not any(gate == "no-hazards" for gate, _ in failed)
    assert "FAILED: 5 of" in (copy / "out" / "report.html").read_text()
    assert _cli(copy).exit_code == 0


def _copy(folder: Path, to: Path) -> Path:
    """`folder` under another path, its files being the same: what is made is found there."""
    return Path(shutil.copytree(folder, to / "copy"))


def test_interrupted_it_says_what_is_kept(
    tiny_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(*words: Any, **arguments: Any) -> dict:
        raise KeyboardInterrupt

    monkeypatch.setitem(functions.FUNCTIONS, "export", press)
    with pytest.raises(Interrupted, match=r"is kept in .*out.\.work: the same command goes on"):
        release_verb([str(tiny_release / "model")], tmp_path / "out")


def test_a_dry_run_says_what_comes_and_writes_nothing(tiny_release: Path, tmp_path: Path) -> None:
    words = ["release", str(tiny_release / "model"), "-o", str(tmp_path / "out"), "--dry-run"]
    spec = ["--spec", str(tiny_release / "release.toml"), "--json"]
    done = invoked([*words, *spec], catch_exceptions=False)
    planned = {one["file"]: one for one in json.loads(done.stdout)["files"]}
    assert not (tmp_path / "out").exists()
    for file in _report(tiny_release)["files"]:
        predicted = planned[file["file"]]["predicted_bytes"]["file"]
        assert predicted == pytest.approx(file["bytes"], rel=0.02)
        assert planned[file["file"]]["phones"] == file["phones"]


def test_what_is_printed_says_who_gets_which_file_and_why(tiny_release: Path) -> None:
    words = ["release", str(tiny_release / "model"), "-o", "none", "--dry-run"]
    lines = invoked(words).stdout.splitlines()
    assert lines[-1] == "every phone: model-cpu.pte"
    named = ["--phones", "pixel-6", "--runtime", "1.5"]
    lines = invoked([*words, *named]).stdout.splitlines()
    assert lines[-2:] == [
        "Google Pixel 6: model-cpu.pte (the CPU's program: there is no profile of its GPU, a "
        "Mali-G78 MP20)",
        "any other phone: model-cpu.pte",
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "gptq"}, "method = 'gptq' is of a model in floating point, and .*model is an"),
        ({"group_size": 64}, "group-size = 64 is of a model in floating point"),
        ({"scheme": "8da4w"}, "scheme = '8da4w' is of the GPUs' programs, and no phone is named"),
    ],
)
def test_what_would_count_for_nothing_is_refused(
    tiny_release: Path, tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make_release(tiny_release / "model", tmp_path / "out", merged_spec(None, given))
    assert not (tmp_path / "out").exists()


def test_it_says_where_the_assets_are(tiny_release: Path, tmp_path: Path) -> None:
    copy, module = _copy(tiny_release, tmp_path), tmp_path / "app"
    module.mkdir()
    words = ["release", str(copy / "model"), "-o", str(copy / "out"), "--android", str(module)]
    done = invoked([*words, "--spec", str(copy / "release.toml")])
    assets = module / "src" / "main" / "assets" / "quatrain"
    assert f"assets: {assets}\n" in done.stdout and (assets / "tokenizer_config.json").is_file()


def test_jobs_here_are_not_for_a_cluster(tiny_release: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--jobs 2 is of this machine, and with --ray auto the"):
        make_release(tiny_release / "model", tmp_path / "out", jobs=2, ray="auto")


def test_without_a_cluster_it_says_so(
    tiny_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    spec = merged_spec(tiny_release / "release.toml", {})
    with pytest.raises(InputError, match=r"--ray needs Ray: pip install 'quatrain\[ray\]'"):
        make_release(tiny_release / "model", tmp_path / "out", spec, ray="auto")


def test_a_folder_that_another_release_works_in_is_refused(
    tiny_release: Path, tmp_path: Path
) -> None:
    copy = _copy(tiny_release, tmp_path)
    refused = pytest.raises(InputError, match="another release is being made there; wait for its")
    with held_alone(copy / "out" / ".work"), refused:
        _again(copy)
    assert _again(copy).failures == []


@pytest.mark.thorough
def test_processes_end_with_the_one_that_asked_for_them() -> None:
    code = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from quatrain.release.tasks.workers import _begin
if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, get_context("spawn"), _begin, (1, ()))
    print(pool.submit(os.getpid).result(), flush=True)
    pool.submit(time.sleep, 600)
    os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    worker = Path("/proc") / done.stdout.strip()
    end = time.monotonic() + 60
    while worker.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert done.returncode == -9 and not worker.exists()


def test_folders_that_hold_something_else_are_refused(tiny_release: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds other files \(notes.txt\)"):
        make_release(tiny_release / "model", tmp_path)
    with pytest.raises(InputError, match="holds the model itself"):
        make_release(tiny_release / "model", tiny_release / "model")


def test_a_gate_against_floating_point_needs_a_model_in_it(tiny_release: Path) -> None:
    spec = merged_spec(None, {"max_kl": 0.1})
    with pytest.raises(InputError, match=r"--max-kl is against floating point, .* --reference"):
        make_release(tiny_release / "model", tiny_release / "nothing", spec)
    assert not (tiny_release / "nothing").exists()


def test_another_model_to_measure_against_is_refused_before_any_work(
    tiny_release: Path, tmp_path: Path
) -> None:
    write_meta(tmp_path / "other")
    for reference, message in (
        (tmp_path / "other", "other: its vocab_size is 272, of .*model 96; give the model that it"),
        (tiny_release / "out", "out: holds neither config.json"),
    ):
        spec = merged_spec(None, {"reference": str(reference)})
        with pytest.raises(InputError, match=message):
            make_release(tiny_release / "model", tmp_path / "out", spec)
    assert not (tmp_path / "out").exists()


def test_a_prompt_without_room_is_refused_before_any_work(
    tiny_release: Path, tmp_path: Path
) -> None:
    spec = merged_spec(None, {"max_seq_len": 4, "prompts": ("w5 w17", "w5 w17 w40 w22 w61")})
    message = r"prompts: 'w5 w17 w40 w22 w61' has 6 tokens in the chat template, and the"
    with pytest.raises(InputError, match=message):
        make_release(tiny_release / "model", tmp_path / "out", spec)
    assert not (tmp_path / "out").exists()


def test_a_model_in_floating_point_is_quantized(tmp_path: Path) -> None:
    """By `quantize`, whose checkpoint and cost are kept."""
    spec = merged_spec(None, {"method": "rtn"})
    source = write_meta(tmp_path / "model", max_seq_len=64)
    made = functions.quantize(tmp_path / "made", source, spec, Stages())
    quantize_model(source, tmp_path / "direct", method="rtn", output_layer="int4")
    assert _sha256(tmp_path / "made" / "model.safetensors") == _sha256(
        tmp_path / "direct" / "model.safetensors"
    )
    assert made["weights_bytes"] == (tmp_path / "made" / "model.safetensors").stat().st_size
