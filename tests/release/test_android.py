"""The release as an app's assets, and on a phone: one that a script called adb pretends to be."""

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from quatrain.errors import InputError
from quatrain.release.android import file_for, lay_out, phones_of, renderers_of
from quatrain.release.on_phone import run_on_phone, speed_in

# Pushes copy; the shell runs here, in the folder that stands for the phone's.
_ADB = """#!/bin/bash
phone={folder}
case "$1" in
  devices) printf 'List of devices attached\\n{devices}' ;;
  push) cp "$2" "$phone/$(basename "$3")" ;;
  shell)
    case "$2" in
      "dumpsys SurfaceFlinger") echo "GLES: ARM, {renderer}, OpenGL ES 3.2 v1.r1" ;;
      "getprop ro.product.model") echo "Pixel 8" ;;
      *) bash -c "${{2//\\/data\\/local\\/tmp\\/quatrain/$phone}}" ;;
    esac ;;
esac
"""


@pytest.fixture
def report(tiny_release: Path) -> dict:
    return json.loads((tiny_release / "out" / "report.json").read_text())


@pytest.fixture
def adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    def attach(renderer: str = "Mali-G715", devices: str = "serial\\tdevice\\n") -> Path:
        phone = tmp_path / "phone"
        phone.mkdir()
        script = tmp_path / "bin" / "adb"
        script.parent.mkdir()
        script.write_text(_ADB.format(folder=phone, devices=devices, renderer=renderer))
        script.chmod(stat.S_IRWXU)
        monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
        return phone

    return attach


def _runner(tmp_path: Path, expected: Path, wrong: str = "") -> Path:
    """Answers as llama_main does, with the prompt before and figures after; from its fifth
    character on `wrong`, where that is given."""
    runner = tmp_path / "llama_main"
    runner.write_text(
        "#!/usr/bin/env python3\n"
        "import json, sys\n"
        "given = dict(word[2:].split('=', 1) for word in sys.argv[1:])\n"
        f"said = json.load(open({str(expected)!r}))['programs'][given['model_path']]\n"
        "answers = {one['input']: one['text'] for one in said['prompts']}\n"
        f"answer = answers[given['prompt']][: 4 if {wrong!r} else None] + {wrong!r}\n"
        "print(given['prompt'] + answer + '\\nPyTorchObserver {\"prompt_tokens\":3}')\n"
    )
    return runner


def test_the_assets_are_laid_out(tiny_release: Path, report: dict, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    assets = lay_out(tiny_release / "out", report, tmp_path / "app")
    assert assets == tmp_path / "app/src/main/assets/quatrain"
    names = {file.name for file in assets.iterdir()}
    programs = {"tiny-8da4w-fp32.pte", "tiny-cpu.pte"}
    assert names == programs | {
        "tokenizer.json", "tokenizer_config.json", "expected.json", "phones.json",
    }  # fmt: skip
    phones = json.loads((assets / "phones.json").read_text())
    assert phones["default"] == "tiny-cpu.pte" and set(phones["programs"]) == programs
    only_cpu = report | {
        "files": [one for one in report["files"] if one["file"] == "tiny-cpu.pte"],
        "phones": [],
    }
    lay_out(tiny_release / "out", only_cpu, tmp_path / "app")
    assert not (assets / "tiny-8da4w-fp32.pte").exists()
    (assets / "phones.json").unlink()
    with pytest.raises(InputError, match="holds other files"):
        lay_out(tiny_release / "out", report, tmp_path / "app")
    (assets / "phones.json").write_text("{}")
    with pytest.raises(
        InputError, match=r"phones.json was not written by a release, which lists its prog"
    ):
        lay_out(tiny_release / "out", report, tmp_path / "app")
    with pytest.raises(InputError, match="no such folder"):
        lay_out(tiny_release / "out", report, tmp_path / "nowhere")


def test_a_program_is_found_by_what_the_driver_calls_the_gpu(report: dict) -> None:
    phones = phones_of(report)
    assert file_for(phones, "Mali-G715") == "tiny-8da4w-fp32.pte"
    assert file_for(phones, "Mali-G715-Immortalis MC11") == "tiny-8da4w-fp32.pte"
    for other in ("Mali-G71", "Mali-G7150", "Adreno (TM) 740"):
        assert file_for(phones, other) == "tiny-cpu.pte"
    assert renderers_of("galaxy-s23") == ["Adreno 740"]
    assert renderers_of("mali-g715") == ["Mali-G715", "Immortalis-G715"]
    assert renderers_of("adreno-6xx") == []


def test_on_a_phone_that_is_right(
    tiny_release: Path, report: dict, tmp_path: Path, adb: Callable[..., Path]
) -> None:
    phone = adb()
    runner = _runner(tmp_path, tiny_release / "out" / "expected.json")
    found = run_on_phone(tiny_release / "out", report, runner)
    assert (found.phone, found.file, found.failures) == ("Pixel 8", "tiny-8da4w-fp32.pte", [])
    assert [one["same"] for one in found.answers] == [True, True]
    assert found.speed("decode") is None
    assert (phone / "tiny-8da4w-fp32.pte").is_file() and (phone / "tokenizer.json").is_file()


@pytest.mark.parametrize(("renderer", "same"), [("Mali-G715", True), ("Mali-G76", False)])
def test_a_file_for_phones_of_two_arithmetics_is_held_against_the_phones_own(
    tiny_release: Path, report: dict, tmp_path: Path, adb: Callable[..., Path],
    renderer: str, same: bool,
) -> None:  # fmt: skip
    """The runner answers as GPUs with integer dot products do."""
    adb(renderer)
    out, file = tmp_path / "out", "tiny-8da4w-fp32.pte"
    shutil.copytree(tiny_release / "out", out, ignore=shutil.ignore_patterns(".work"))
    expected = json.loads((out / "expected.json").read_text())
    usual = expected["programs"][file]["prompts"]
    other = [one | {"as_on": "mali-g76", "text": f"not {one['text']}"} for one in usual]
    expected["programs"][file]["prompts"] = [*other, *usual]
    (out / "expected.json").write_text(json.dumps(expected))
    report["phones"].insert(0, {"id": "mali-g76", "file": file, "as_on": "mali-g76"})
    found = run_on_phone(out, report, _runner(tmp_path, out / "expected.json"))
    assert [one["same"] for one in found.answers] == [same] * len(usual)


def test_an_empty_answer_is_neither_the_same_nor_another(
    tiny_release: Path, report: dict, tmp_path: Path, adb: Callable[..., Path]
) -> None:
    """What the phone writes in its place begins with it, too."""
    adb()
    out = tmp_path / "out"
    shutil.copytree(tiny_release / "out", out, ignore=shutil.ignore_patterns(".work"))
    expected = json.loads((out / "expected.json").read_text())
    expected["programs"]["tiny-8da4w-fp32.pte"]["prompts"][0] |= {"text": "", "tokens": []}
    (out / "expected.json").write_text(json.dumps(expected))
    runner = _runner(tmp_path, out / "expected.json", wrong="garbage")
    found = run_on_phone(out, report, runner)
    assert [one["same"] for one in found.answers] == [None, False]
    assert len(found.failures) == 1


def test_speed_is_what_the_runner_tells() -> None:
    """The fields are those of ExecuTorch 1.5's stats.h."""
    stats = {
        "prompt_tokens": 100, "generated_tokens": 30, "model_load_start_ms": 0,
        "model_load_end_ms": 900, "inference_start_ms": 1000, "inference_end_ms": 3500,
        "prompt_eval_end_ms": 1500, "first_token_ms": 1520, "aggregate_sampling_time_ms": 3,
        "SCALING_FACTOR_UNITS_PER_SECOND": 1000,
    }  # fmt: skip
    told = f"The answer.\nPyTorchObserver {json.dumps(stats)}\nI 00:00:01 and more"
    assert speed_in(told) == {"prefill": 200.0, "decode": 15.0}
    for nothing in ("The answer.", 'PyTorchObserver {"prompt_tokens":3}', "PyTorchObserver {x}"):
        assert speed_in(nothing) == {"prefill": None, "decode": None}


def test_on_a_phone_that_is_wrong(
    tiny_release: Path, report: dict, tmp_path: Path, adb: Callable[..., Path]
) -> None:
    adb()
    runner = _runner(tmp_path, tiny_release / "out" / "expected.json", wrong="lingoubtedoubted")
    found = run_on_phone(tiny_release / "out", report, runner)
    assert len(found.failures) == 2
    assert "Pixel 8, Mali-G715" in found.failures[0]
    assert "on: 'lingoubtedoubted" in found.failures[0] and found.answers[0]["characters"] > 0


def test_without_a_phone_it_says_so(
    tiny_release: Path,
    report: dict,
    tmp_path: Path,
    adb: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runner = _runner(tmp_path, tiny_release / "out" / "expected.json")
    out, path = tiny_release / "out", os.environ["PATH"]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="adb is not on the PATH; nothing was run on a phone"):
        run_on_phone(out, report, runner)
    monkeypatch.setenv("PATH", path)
    adb(devices="serial\\tunauthorized\\n")
    with pytest.raises(InputError, match=r"adb sees serial\s+unauthorized, expected one phone"):
        run_on_phone(out, report, runner)
    with pytest.raises(InputError, match="no such file"):
        run_on_phone(out, report, tmp_path / "nowhere")
