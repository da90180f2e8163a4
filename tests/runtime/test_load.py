"""Which runtime `--device auto` takes, and why."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
import torch
from tests.support.defects.edited_methods import (
    Edit,
    beyond_its_memory,
    called_otherwise,
    called_twice,
    edited_method,
    of_another_backend,
    one_value_more,
    only_tokens_given_back,
    result,
    tokens_as_text,
    tokens_given_back,
    tokens_of_one_length,
)
from tests.support.devices import RUNNERS, needs_gpu
from tests.support.paths import ARTIFACTS as FOLDER
from tests.support.paths import CONFORMANCE

from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.program import open_program
from quatrain.program.vulkan.linear_kernels import INT4_LINEARS
from quatrain.quiet import native_output_held_back
from quatrain.runtime import automatic, load
from quatrain.runtime.load import load_runner, require_tokens_to_logits
from quatrain.runtime.unavailable import RuntimeUnavailable
from quatrain.runtime.wgpu.adapters import list_adapters
from quatrain.verify.evaluate.evaluated_models import open_evaluated_model

VULKAN, XNNPACK = FOLDER / "peer-8da4w-fp32.pte", FOLDER / "peer-xnnpack-8da4w.pte"


def _adapters(monkeypatch: pytest.MonkeyPatch, *kinds: str) -> None:
    """Let this machine have an adapter of each of `kinds`."""
    found = tuple(SimpleNamespace(name=f"a {kind}", is_cpu=kind == "CPU") for kind in kinds)
    monkeypatch.setattr("quatrain.runtime.wgpu.adapters.list_adapters", lambda: found)


def _openable_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the GPU runtime be one that needs no adapter."""

    def gpu_runner(*arguments: object) -> SimpleNamespace:
        return SimpleNamespace(device="gpu, here")

    monkeypatch.setattr(load, "_gpu_runner", gpu_runner)


@pytest.mark.parametrize("device", ["reference", "gpu"])
def test_where_a_program_for_the_cpu_runs_is_said(device: str) -> None:
    with pytest.raises(InputError, match=f"no Vulkan .*{device} .*here with --device executorch"):
        load_runner(XNNPACK, device)


def test_a_real_gpu_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    _adapters(monkeypatch, "DiscreteGPU", "CPU")
    _openable_gpu(monkeypatch)
    assert load_runner(VULKAN).device == "gpu, here"


def test_without_a_real_gpu_it_is_the_reference_where_its_weights_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _adapters(monkeypatch, "CPU")
    _openable_gpu(monkeypatch)
    assert load_runner(VULKAN).device == "reference (a CPU computes on the CPU too)"
    graph = open_program(VULKAN).vulkan
    packed = {op.named_args["weights"] for op in graph.operators if op.kind in INT4_LINEARS}
    dense = 4 * sum(2 * graph.tensor(weight).nbytes for weight in packed)
    monkeypatch.setattr(automatic, "installed_memory_bytes", lambda: 2 * dense)
    too_large = "gpu, here (the reference's float32 weights do not fit in memory)"
    assert load_runner(VULKAN).device == too_large
    monkeypatch.setattr(automatic, "installed_memory_bytes", lambda: 2 * dense + 1)
    assert load_runner(VULKAN).device.startswith("reference")


def test_an_operator_that_the_reference_lacks_is_the_software_gpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _adapters(monkeypatch, "CPU")
    _openable_gpu(monkeypatch)
    reason = "the reference runtime has no kernel for aten.foo"

    def lacking(*arguments: object) -> NoReturn:
        raise RuntimeUnavailable(f"m.pte: {reason}", reason)

    monkeypatch.setattr(load, "_reference_runner", lacking)
    assert load_runner(VULKAN).device == f"gpu, here ({reason})"
    monkeypatch.setattr(load, "_gpu_runner", lacking)
    with pytest.raises(InputError, match=r"m\.pte: the reference runtime has no kernel"):
        load_runner(VULKAN)


def test_verbs_choose_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """`logits` and `evaluate` change some operators and the scheme of the program they load."""
    _adapters(monkeypatch, "CPU")
    run = load_runner(VULKAN).device
    logits = open_evaluated_model(VULKAN, "auto", None, Scheme.DYNAMIC_INT8, "logits")
    assert logits.load().device == run
    assert logits.load_decode and logits.load_decode().device == run


def test_the_choice_imports_no_runtime_before_it_is_made() -> None:
    code = (
        "import sys, quatrain.runtime.load\n"
        "print([m for m in sys.modules if m.startswith(('wgpu', 'quatrain.runtime.reference'))])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


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
    monkeypatch.setattr(load, "first_choice", lambda graph: ("gpu", ""))
    expected = "reference (the GPU runtime has no kernel for aten.foo)"
    assert load_runner(VULKAN).device == expected


def test_other_programs_run_on_executorch() -> None:
    assert load_runner(XNNPACK).device == "executorch"
    with pytest.raises(InputError, match="--emulate is for Vulkan programs"):
        load_runner(XNNPACK, emulate="dq8ca-zp-binding-float")
    with pytest.raises(InputError, match="expected one of auto, gpu"):
        load_runner(XNNPACK, "phone")


def test_executorch_needs_a_name_in_utf_8(tmp_path: Path) -> None:
    copy = shutil.copy(FOLDER / "peer-xnnpack-8da4w.pte", tmp_path / os.fsdecode(b"\xff.pte"))
    with pytest.raises(InputError, match="not UTF-8, which the ExecuTorch runtime needs; rename"):
        load_runner(open_program(copy))


def test_executorch_runs_without_the_compiler() -> None:
    """Whose import takes longer than all else before the first token."""
    code = (
        "import sys; from quatrain.runtime.load import load_runner\n"
        f"print(load_runner({str(XNNPACK)!r}).device)\n"
        "print({'executorch.exir', 'torch._dynamo', 'torch._inductor'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split("\n") == ["executorch", "set()", ""], done.stderr


def test_executorchs_logits_are_not_overwritten_by_the_next_call() -> None:
    runner = load_runner(open_program(XNNPACK))
    first = runner.forward(torch.tensor([[1, 2]]), torch.tensor([0]))
    held = first.clone()
    assert not runner.forward(torch.tensor([[5, 6]]), torch.tensor([2])).equal(held)
    assert first.equal(held)


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
        with pytest.raises(type(error)), native_output_held_back():
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


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (one_value_more, "no runtime takes its call of its delegate: method forward passes it 4"),
        (beyond_its_memory, "value 0 of method forward lies past the end of its planned memory"),
        (of_another_backend, "its backend is called VulkanBackend2, expected VulkanBackend"),
        (result(1, 48), r"has room for \[1, 48\], but its graph gives \[1, 96\]"),
        (
            tokens_as_text,
            "value 0 of method forward has the type String, but its inputs and outputs",
        ),
        (only_tokens_given_back, "what its method returns is no result of its delegate"),
        (called_twice, "2 instructions"),
        (called_otherwise, "its methods are decode, expected forward alone"),
        (tokens_given_back, "its method forward gives 2 results, expected one"),
    ],
)
def test_a_method_that_a_phone_refuses_is_refused(
    edit: Edit, expected: str, tmp_path: Path
) -> None:
    program = edited_method(CONFORMANCE / "llama_w.pte", edit)(tmp_path)
    for device in ("auto", "reference", "gpu"):
        with pytest.raises(InputError, match=expected):
            load_runner(program, device)


@pytest.mark.parametrize("runner", RUNNERS)
def test_calls_of_the_one_length_that_a_method_takes(runner: type, tmp_path: Path) -> None:
    opened = runner(edited_method(CONFORMANCE / "llama_w.pte", tokens_of_one_length)(tmp_path))
    with pytest.raises(InputError, match=r"takes \[1, 64\] alone"):
        opened.forward(torch.ones(1, 5).long(), torch.tensor([0]))
    assert opened.forward(torch.ones(1, 64).long(), torch.tensor([0])).shape == (1, 96)
