"""A release: what it consists of, what it refuses, and what it says."""

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.command_line import invoked
from tests.support.models.tiny_models import write_meta
from tests.support.releases import copied, merged_spec, release_again, report_of, sha256
from typer.testing import Result

from quatrain.commands.printing.release import print_release
from quatrain.commands.release import release as release_verb
from quatrain.errors import InputError, Interrupted
from quatrain.quantize.pipeline import quantize_model
from quatrain.release.gates import gates_of
from quatrain.release.release import make_release
from quatrain.release.spec import ReleaseSpec
from quatrain.release.tasks import functions
from quatrain.stages import Stages
from quatrain.verify.expected import read_expected


def test_each_phone_has_its_file_and_those_alike_share_one(tiny_release: Path) -> None:
    phones = {phone["id"]: phone for phone in report_of(tiny_release)["phones"]}
    assert phones["pixel-8"]["file"] == phones["pixel-8-pro"]["file"] == "tiny-8da4w-fp32.pte"
    assert phones["pixel-6"]["file"] == "tiny-cpu.pte"
    assert "its GPU, a Mali-G78 MP20, has no profile" in phones["pixel-6"]["reasons"][0]
    assert not phones["pixel-8"]["defects"]["1.3"]["fails"]
    failing = {one["defect"] for one in phones["pixel-8"]["defects"]["1.0"]["fails"]}
    assert "unknown-operator" in failing


def test_a_single_token_has_no_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """`--tokens 2`, of which one is predicted."""
    measured = {"regime": None, "as_on": None, "kl": 0.1, "ratio": 1.1, "ratio_error": None}
    file = {"file": "a.pte", "bytes": 1, "quality": [measured], "notes": []}
    made: Any = SimpleNamespace(
        folder=Path("out"), report={"files": [file]}, phone=None, failures=[],
        plan=SimpleNamespace(phones=[], cpu=None),
    )  # fmt: skip
    print_release(made)
    assert "perplexity 1.100 x floating point" in capsys.readouterr().out


def test_a_note_on_several_files_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    files = [
        {"file": name, "bytes": 1, "quality": [], "notes": notes}
        for name, notes in (("a.pte", ["One."]), ("b.pte", ["One.", "Two."]), ("c.pte", []))
    ]
    made: Any = SimpleNamespace(
        folder=Path("out"), report={"files": files}, phone=None, failures=[],
        plan=SimpleNamespace(phones=[], cpu=None),
    )  # fmt: skip
    print_release(made)
    said = capsys.readouterr().out.splitlines()
    assert said[4:6] == ["  note on a.pte, b.pte: One.", "  note on b.pte: Two."]


def test_the_manifest_has_every_file_and_its_digest(tiny_release: Path) -> None:
    out = tiny_release / "out"
    manifest = json.loads((out / "manifest.json").read_text())
    files = {file.name for file in out.iterdir() if file.is_file()} - {"manifest.json"}
    assert set(manifest["files"]) == files
    for name, said in manifest["files"].items():
        assert said == {"bytes": (out / name).stat().st_size, "sha256": sha256(out / name)}
    sources = {one["name"]: one["sha256"] for one in manifest["source"]}
    assert sources["model.safetensors"] == sha256(tiny_release / "model" / "model.safetensors")
    assert manifest["licence"]["fields"] == {"license": "apache-2.0"}
    assert manifest["options"]["group-size"] is None  # which is the checkpoint's


def test_what_is_expected_is_of_these_files(tiny_release: Path) -> None:
    expected = read_expected(tiny_release / "out" / "expected.json")
    for name, program in expected.items():
        assert program.sha256 == sha256(tiny_release / "out" / name)
        assert [one.prompt for one in program.prompts] == ["w5 w17 w40", "w22 w61"]
        assert all(one.chat and len(one.tokens) <= 6 for one in program.prompts)


def test_a_prompt_that_is_named_twice_moves_no_answer(tiny_release: Path, tmp_path: Path) -> None:
    copy = copied(tiny_release, tmp_path)
    made = release_again(copy, prompts=("w5 w17 w40", "w5 w17 w40", "w22 w61"), new_tokens=2)
    for name, program in read_expected(copy / "out" / "expected.json").items():
        texts = {one.prompt: one.text for one in program.prompts}
        for sample in made.report["samples"]:
            (shown,) = [one["text"] for one in sample["answers"] if one["file"] == name]
            assert shown == texts[sample["prompt"]]


def _cli(folder: Path, *options: str) -> Result:
    words = ["release", str(folder / "model"), "-o", str(folder / "out")]
    spec = ["--spec", str(folder / "release.toml")]
    return invoked([*words, *spec, *options])


def test_a_gate_that_does_not_hold_is_the_exit_code(tiny_release: Path, tmp_path: Path) -> None:
    copy = copied(tiny_release, tmp_path)
    done = _cli(copy, "--max-mb", "0.001", "--max-kl", "0.000001", "--no-defects", "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert not found["passed"]
    failed = {(one["gate"], one["of"]) for one in found["gates"] if not one["passed"]}
    assert ("max-mb", "tiny-cpu.pte") in failed
    assert ("max-kl", "tiny-8da4w-fp32.pte (decode)") in failed
    assert not any(gate == "no-defects" for gate, _ in failed)
    assert "FAILED: 5 of" in (copy / "out" / "report.html").read_text()
    assert _cli(copy).exit_code == 0


def test_interrupted_it_says_what_is_kept(
    tiny_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(*words: Any, **arguments: Any) -> dict:
        raise KeyboardInterrupt

    monkeypatch.setitem(functions.FUNCTIONS, "export", press)
    with pytest.raises(Interrupted, match=r"the same command resumes .*is kept in .*out.\.work"):
        release_verb([str(tiny_release / "model")], tmp_path / "out")


def test_a_dry_run_says_what_comes_and_writes_nothing(tiny_release: Path, tmp_path: Path) -> None:
    words = ["release", str(tiny_release / "model"), "-o", str(tmp_path / "out"), "--dry-run"]
    spec = ["--spec", str(tiny_release / "release.toml"), "--json"]
    done = invoked([*words, *spec], catch_exceptions=False)
    planned = {one["file"]: one for one in json.loads(done.stdout)["files"]}
    assert not (tmp_path / "out").exists()
    for file in report_of(tiny_release)["files"]:
        predicted = planned[file["file"]]["predicted_bytes"]["file"]
        assert predicted == pytest.approx(file["bytes"], rel=0.02)
        assert planned[file["file"]]["phones"] == file["phones"]


def test_what_is_printed_says_who_gets_which_file_and_why(tiny_release: Path) -> None:
    words = ["release", str(tiny_release / "model"), "-o", "none", "--dry-run"]
    for wrong, said in (
        (["--android", "nowhere"], "--android nowhere: no such folder"),
        (["--jobs", "2", "--ray", "auto"], "--jobs 2 applies to this machine"),
    ):
        found = invoked([*words, *wrong])
        assert isinstance(found.exception, InputError) and said in str(found.exception)
    lines = invoked(words).stdout.splitlines()
    assert lines[-1] == "every phone: model-cpu.pte"
    said = invoked([*words, "--jobs", "2", "--run-on-phone", "llama_main"]).stderr
    assert "stops before the work that --jobs and --run-on-phone are for" in said
    named = ["--phones", "pixel-6", "--runtime", "1.5"]
    lines = invoked([*words, *named]).stdout.splitlines()
    assert lines[-2:] == [
        "Google Pixel 6: model-cpu.pte (the CPU's program: its GPU, a Mali-G78 MP20, has no "
        "profile)",
        "any other phone: model-cpu.pte",
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "gptq"}, "method = 'gptq' is for a floating-point model, but .*model is an"),
        ({"group_size": 64}, "group-size = 64 is for a floating-point model"),
        ({"group_size": 32}, "group-size = 32 is for a floating-point model"),
        ({"embedding": "keep"}, "embedding = 'keep' is for a floating-point model"),
        ({"output_layer": "int4"}, "output-layer = 'int4' is for a floating-point model"),
        ({"scheme": "8da4w"}, "scheme = '8da4w' is for GPU programs, but no phone is named"),
        ({"cpu": False}, "cpu = false has no effect if no phone is named"),
        ({"no_defects": True}, "no-defects has no effect if no phone is named"),
    ],
)
def test_what_would_count_for_nothing_is_refused(
    tiny_release: Path, tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make_release(tiny_release / "model", tmp_path / "out", merged_spec(None, given))
    assert not (tmp_path / "out").exists()


def test_a_gate_that_fails_shows_by_how_much() -> None:
    verify, row = {"passed": True, "problems": []}, {"regime": None, "as_on": None}
    file = {"file": "m.pte", "verify": verify, "bytes": 300_040_000}
    file["quality"] = [row | {"kl": 0.20003, "ratio": 1.1}]
    spec = ReleaseSpec(max_mb=300.0, max_kl=0.2, max_perplexity_ratio=1.1)
    gates = gates_of(spec, {"files": [file], "asked_about": "any", "phones": []})
    assert [(one["said"], one["passed"]) for one in gates[1:]] == [
        ("m.pte: 300.04 MB, allowed 300", False),
        ("m.pte: KL 0.20003 nats, allowed 0.2", False),
        ("m.pte: perplexity 1.1000 x floating point, allowed 1.1", True),
    ]


def test_an_option_that_is_a_key_here_is_called_so(tiny_release: Path, tmp_path: Path) -> None:
    model = copied(tiny_release, tmp_path) / "model"
    (model / "tokenizer_config.json").unlink()
    words = ["release", model, "-o", tmp_path / "out", "--dry-run", "--spec"]
    for text, said in {
        "chat = true": rf"^{model}: has no chat template .* --chat out; in a release chat is a key "
        "of --spec",
        "max-seq-len = 65": "--max-seq-len is 65, .*; in a release max-seq-len is a key of --spec",
        "tokens = 1": "tokens is 1, expected 2 or more$",
    }.items():
        (tmp_path / "release.toml").write_text(text)
        found = invoked([*words, tmp_path / "release.toml"]).exception
        assert isinstance(found, InputError) and re.search(said, str(found)), found


def test_it_says_where_the_assets_are(tiny_release: Path, tmp_path: Path) -> None:
    copy, module = copied(tiny_release, tmp_path), tmp_path / "app"
    module.mkdir()
    words = ["release", str(copy / "model"), "-o", str(copy / "out"), "--android", str(module)]
    done = invoked([*words, "--spec", str(copy / "release.toml")])
    assets = module / "src" / "main" / "assets" / "quatrain"
    assert f"assets: {assets}\n" in done.stdout and (assets / "tokenizer_config.json").is_file()


def test_folders_that_hold_something_else_are_refused(tiny_release: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds other files \(notes.txt\)"):
        make_release(tiny_release / "model", tmp_path)
    with pytest.raises(InputError, match="holds the source model"):
        make_release(tiny_release / "model", tiny_release / "model")
    (tmp_path / "out").mkdir()
    for manifest, message in (
        ({"format": "quatrain-release-1"}, "manifest.json is damaged: 'files' is not an object"),
        ({"name": "a page"}, "holds another manifest.json; name a new folder"),
    ):
        (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(InputError, match=message):
            make_release(tiny_release / "model", tmp_path / "out")


def test_a_gate_against_floating_point_needs_a_model_in_it(tiny_release: Path) -> None:
    spec = merged_spec(None, {"max_kl": 0.1})
    with pytest.raises(
        InputError, match=r"--max-kl compares with the floating-point model, .* --reference"
    ):
        make_release(tiny_release / "model", tiny_release / "nothing", spec)
    quantized = merged_spec(None, {"reference": str(tiny_release / "model")})
    with pytest.raises(InputError, match=r"^--reference .*: is an int4 checkpoint, but a release"):
        make_release(tiny_release / "model", tiny_release / "nothing", quantized)
    assert not (tiny_release / "nothing").exists()


def test_another_model_to_measure_against_is_refused_before_any_work(
    tiny_release: Path, tmp_path: Path
) -> None:
    write_meta(tmp_path / "other")
    for reference, message in (
        (
            tmp_path / "other",
            "other: its vocab_size is 272, but 96 for .*model; give the original model",
        ),
        (tiny_release / "out", "out: holds neither config.json"),
    ):
        spec = merged_spec(None, {"reference": str(reference)})
        with pytest.raises(InputError, match=message):
            make_release(tiny_release / "model", tmp_path / "out", spec)
    assert not (tmp_path / "out").exists()


def test_texts_that_cannot_be_asked_or_measured_are_refused_before_any_work(
    tiny_release: Path, tmp_path: Path
) -> None:
    (tmp_path / "one.txt").write_text("w5")
    for given, message in (
        (
            {"max_seq_len": 4, "prompts": ("w5 w17", "w5 w17 w40 w22 w61")},
            r"prompts: 'w5 w17 w40 w22 w61' has 6 tokens in the chat template, but the",
        ),
        ({"chat": False, "prompts": ("w5", "")}, r"prompts: '' has no tokens; give some text"),
        ({"text": tmp_path / "one.txt"}, r"--text .*one.txt: has fewer than two tokens"),
    ):
        with pytest.raises(InputError, match=message):
            make_release(tiny_release / "model", tmp_path / "out", merged_spec(None, given))
        assert not (tmp_path / "out").exists()


def test_what_is_named_beside_a_model_is_looked_at_before_that_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("commands.release.fetched_smollm2", "release.release.local_path"):
        monkeypatch.setattr(f"quatrain.{module}", lambda *_: pytest.fail("it is fetched"))
    os.mkfifo(tmp_path / "pipe")
    for option, value, message in (
        ("--phones", "pixel-8,galaxy-s99", "no profile of a device 'galaxy-s99'"),
        ("--text", str(tmp_path / "pipe"), "is a pipe or a device, but a release reads its text"),
    ):
        for model in ("smollm2", "hf://owner/name"):
            said = invoked(["release", model, "-o", str(tmp_path / "out"), option, value])
            assert isinstance(said.exception, InputError) and message in str(said.exception)


def test_a_model_in_floating_point_is_quantized(tmp_path: Path) -> None:
    """By `quantize`, whose checkpoint and cost are kept."""
    spec = merged_spec(None, {"method": "rtn"})
    source = write_meta(tmp_path / "model", max_seq_len=64)
    made = functions.quantize(tmp_path / "made", source, spec, "vulkan", Stages())
    quantize_model(source, tmp_path / "direct", method="rtn", output_layer="int4", backend="vulkan")
    assert sha256(tmp_path / "made" / "model.safetensors") == sha256(
        tmp_path / "direct" / "model.safetensors"
    )
    assert made["weights_bytes"] == (tmp_path / "made" / "model.safetensors").stat().st_size
