"""`quatrain devices`, `selftest`, and the device options of `run` on a GPU."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
from tests.support.command_line import invoked
from tests.support.devices import needs_gpu
from tests.support.paths import ARTIFACTS as FOLDER

from quatrain.errors import CheckFailed, InputError
from quatrain.runtime.wgpu import selftest
from quatrain.runtime.wgpu.profile import Timing, by_operator, write_chrome_trace
from quatrain.stages import Stages


def _run(*arguments: str) -> str:
    result = invoked(arguments, catch_exceptions=False)
    return result.stdout


@needs_gpu
def test_devices_lists_what_each_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[str] = []
    monkeypatch.setattr(
        "quatrain.commands.devices.said_where_slow", lambda name: nullcontext(waited.append(name))
    )
    said = invoked(["devices", "--json"])
    found = json.loads(said.stdout)["adapters"]
    assert waited == ["ask the drivers"] and said.stderr == ""
    assert found and {"name", "kind", "backend", "fp16", "max_binding"} <= found[0].keys()
    assert found[0]["name"].split()[0] in _run("devices")


@needs_gpu
def test_selftest_runs_one_kernel() -> None:
    report = json.loads(_run("selftest", "--kernel", "rms_norm", "--json"))
    assert report["passed"]
    assert {result["kernel"] for result in report["kernels"]} == {"rms_norm"}
    assert all(result["worst"] < result["allowed"] for result in report["kernels"])


@needs_gpu
def test_selftest_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "run_case", lambda gpu, case: 0.0)
    told: list[float] = []
    stages = Stages(progress=lambda name, fraction, left: told.append(fraction))
    result = selftest.run_selftest(None, "rms_norm", stages).kernels[0]
    assert result.cases > 2 and told == sorted(told) and 0 < told[0] < told[-1] < 1


@needs_gpu
def test_selftest_fails_on_a_wrong_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "run_case", lambda gpu, case: float("inf"))
    with pytest.raises(CheckFailed, match="cases are wrong"):
        _run("selftest", "--kernel", "embedding")
    with pytest.raises(InputError, match=r"^--kernel sorting: no kernel has that in its name; "):
        _run("selftest", "--kernel", "sorting")


def test_a_profile_adds_up_and_traces(tmp_path: Path) -> None:
    timings = [
        Timing("aten.add", "elementwise", (1, 8), 0, 1000),
        Timing("et_vk.linear", "linear_rows", (8, 4), 1500, 5000),
        Timing("aten.add", "elementwise", (1, 8), 7000, 2000),
    ]
    first, second = by_operator(timings)
    assert (first.operator, first.dispatches) == ("et_vk.linear", 1)
    assert (second.operator, second.dispatches, second.milliseconds) == ("aten.add", 2, 0.003)
    write_chrome_trace(timings, tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert [event["ts"] for event in events] == [0, 1.5, 7]
    assert [event["dur"] for event in events] == [1, 5, 2]


@pytest.mark.parametrize(
    ("device", "trace", "message"),
    [
        ("reference", "trace.json", "times GPU kernels"),
        ("auto", "no folder/trace.json", "--profile .*: there is no folder"),
        ("gpu", "", "--profile .*: is a folder"),
    ],
)
def test_a_profile_that_cannot_be_made_is_refused_before_anything_runs(
    device: str, trace: str, message: str, tmp_path: Path
) -> None:
    program = FOLDER / "peer-8da4w-fp32.pte"
    asked = ("run", str(program), "--prompt", "x", "--device", device)
    with pytest.raises(InputError, match=message):  # sooner than that it has no tokenizer
        _run(*asked, "--profile", str(tmp_path / trace))


def test_a_profile_of_a_program_for_the_cpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"peer-xnnpack-8da4w.pte is a program for the CPU; leave"):
        _run(
            "run", str(FOLDER / "peer-xnnpack-8da4w.pte"), "--prompt", "x",
            "--profile", str(tmp_path / "trace.json"),
        )  # fmt: skip


def test_run_looks_for_the_tokenizer_before_it_opens_a_device() -> None:
    with pytest.raises(InputError, match="json there, or give one as --tokenizer"):
        _run("run", str(FOLDER / "peer-8da4w-fp32.pte"), "--prompt", "x", "--device", "gpu:nowhere")
