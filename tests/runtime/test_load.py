"""Which runtime `--device auto` takes, and why."""

import json
import os
import time
from pathlib import Path

import pytest
import torch
from tests.support.paths import ARTIFACTS as FOLDER

from quatrain.errors import InputError
from quatrain.program.edit.all_position_logits import give_all_position_logits
from quatrain.runtime import load
from quatrain.runtime.executorch import _native_output_held_back
from quatrain.runtime.load import load_runner, require_tokens_to_logits
from quatrain.runtime.speed import KeptSpeeds, decode_seconds
from quatrain.runtime.wgpu.adapters import list_adapters
from quatrain.stages import Stages

VULKAN, XNNPACK = FOLDER / "peer-8da4w-fp32.pte", FOLDER / "peer-xnnpack-8da4w.pte"

needs_gpu = pytest.mark.skipif(
    not list_adapters(),
    reason="no Vulkan adapter: apt-get install mesa-vulkan-drivers gives a software one",
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUATRAIN_CACHE", str(tmp_path))
    return tmp_path


def _pretend(monkeypatch: pytest.MonkeyPatch, gpu: float, reference: float) -> list[str]:
    """Let the runtimes take so many seconds a step; returns which were timed."""
    timed = []

    def decode_seconds(runner: object, one: object) -> float:
        timed.append(type(runner).__name__)
        return gpu if timed[-1] == "WgpuRunner" else reference

    monkeypatch.setattr(load, "decode_seconds", decode_seconds)
    return timed


@needs_gpu
@pytest.mark.parametrize(
    ("gpu", "reference", "chosen"), [(0.5, 0.25, "ReferenceRunner"), (0.1, 0.2, "WgpuRunner")]
)
def test_the_faster_of_software_gpu_and_reference_is_taken_and_kept(
    gpu: float, reference: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not list_adapters()[0].is_cpu:
        pytest.skip("a real GPU is taken without a measurement")
    timed = _pretend(monkeypatch, gpu, reference)
    runner = load_runner(VULKAN)
    runtime = runner.device
    assert type(runner).__name__ == chosen
    assert f"{1 / gpu:.1f}" in runtime and f"{1 / reference:.1f}" in runtime
    assert runtime.startswith("reference" if chosen == "ReferenceRunner" else "gpu, ")
    assert load_runner(VULKAN).device == runtime
    assert timed == ["WgpuRunner", "ReferenceRunner"]


@needs_gpu
def test_near_a_tie_and_once_measured_it_is_the_reference_and_no_gpu_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not list_adapters()[0].is_cpu:
        pytest.skip("a real GPU is taken without a measurement")
    _pretend(monkeypatch, gpu=0.19, reference=0.2)
    runtime = load_runner(VULKAN).device
    assert runtime.startswith("reference (measured 5.0 tokens/s")
    monkeypatch.setattr(load, "_gpu_runner", None)
    assert load_runner(VULKAN).device == runtime


def test_a_slow_step_is_timed_twice_at_most() -> None:
    class Slow:
        calls = 0

        def forward(self, *inputs: object) -> torch.Tensor:
            self.calls += 1
            time.sleep(0.11)
            return torch.zeros(1)

        def reset(self) -> None: ...

    runner = Slow()
    assert decode_seconds(runner, torch.tensor([[0]])) >= 0.11
    assert runner.calls <= 3  # one of them to warm up


@needs_gpu
def test_steps_are_really_timed_and_that_is_shown(cache: Path) -> None:
    if not list_adapters()[0].is_cpu:
        pytest.skip("a real GPU is taken without a measurement")
    stages = Stages()
    runtime = load_runner(VULKAN, stages=stages).device
    assert "measured" in runtime and list(stages.seconds) == ["measure which runtime is faster"]
    kept = json.loads(next(cache.glob("speeds/*.json")).read_text())
    assert 0 < kept["gpu"] < 10 and 0 < kept["reference"] < 10


def test_damaged_speeds_are_measured_again(cache: Path) -> None:
    graph = load.open_program(VULKAN).vulkan
    kept = KeptSpeeds(graph, "an adapter")
    assert kept.read() is None
    kept.write({"gpu": 1.0, "reference": 2.0})
    assert kept.read() == {"gpu": 1.0, "reference": 2.0}
    assert KeptSpeeds(graph, "another").read() is None
    give_all_position_logits(graph)  # as `logits` and `evaluate` do
    assert KeptSpeeds(graph, "an adapter").read() == kept.read()
    kept.path.write_text('{"gpu": "fast"}')
    assert kept.read() is None


@needs_gpu
def test_a_real_gpu_and_a_reference_that_does_not_fit_need_no_measurement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timed = _pretend(monkeypatch, 1.0, 0.1)
    monkeypatch.setattr(load, "reference_fits", lambda graph: False)
    assert load_runner(VULKAN).device == f"gpu, {list_adapters()[0].name}"
    assert timed == []


def test_without_an_adapter_it_is_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quatrain.runtime.wgpu.adapters.list_adapters", lambda: ())
    assert load_runner(VULKAN).device == "reference (no GPU adapter was found)"
    with pytest.raises(InputError, match="mesa-vulkan-drivers"):
        load_runner(VULKAN, "gpu")
    assert load_runner(VULKAN, "reference").device == "reference"


@needs_gpu
def test_an_operator_without_a_gpu_kernel_is_named_in_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("quatrain.runtime.wgpu.runner.unsupported", lambda operators: ["aten.foo"])
    expected = "reference (the GPU runtime has no kernel for aten.foo)"
    assert load_runner(VULKAN).device == expected


def test_other_programs_run_on_executorch() -> None:
    assert load_runner(XNNPACK).device == "executorch"
    with pytest.raises(InputError, match="--emulate works with"):
        load_runner(XNNPACK, emulate="dq8ca-zp-binding-float")
    with pytest.raises(InputError, match="expected one of auto, gpu"):
        load_runner(XNNPACK, "phone")


def test_executorch_says_what_it_lacks_for_a_vulkan_program() -> None:
    from executorch.runtime import Runtime

    if "VulkanBackend" in Runtime.get().backend_registry.registered_backend_names:
        assert load_runner(VULKAN, "executorch").device == "executorch"
    else:
        with pytest.raises(InputError, match=r"needs VulkanBackend.*--device reference or gpu"):
            load_runner(VULKAN, "executorch")


def test_a_refusal_is_not_preceded_by_what_was_printed_meanwhile(
    capfd: pytest.CaptureFixture[str],
) -> None:
    for error in (InputError("no"), ZeroDivisionError()):
        with pytest.raises(type(error)), _native_output_held_back():
            os.write(2, b"a native library's note")
            raise error
        shown = capfd.readouterr().err
        assert shown == ("" if isinstance(error, InputError) else "a native library's note")


def test_a_program_of_hidden_states_is_refused_by_verb() -> None:
    with pytest.raises(InputError, match=r"exported with --hidden-output; run takes"):
        require_tokens_to_logits(VULKAN, {"quatrain_hidden_output": True}, "run")


@needs_gpu
def test_a_gpu_can_be_named() -> None:
    name = list_adapters()[0].name
    assert load_runner(VULKAN, f"gpu:{name}").device == f"gpu, {name}"
    with pytest.raises(InputError, match="no GPU adapter is called"):
        load_runner(VULKAN, "gpu:no such card")


@pytest.mark.parametrize("device", ["gpu:", "reference:0", "cuda", ""])
def test_an_unknown_device_is_refused_with_those_there_are(device: str) -> None:
    with pytest.raises(InputError, match="expected one of auto, gpu, reference, executorch"):
        load_runner(VULKAN, device)
