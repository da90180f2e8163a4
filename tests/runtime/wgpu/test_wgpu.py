"""The GPU runtime against the CPU reference, on programs of ExecuTorch's own exporter."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.comparisons.rounding import assert_equal_but_for_rounding, called
from tests.support.devices import needs_gpu
from tests.support.paths import ARTIFACTS as FOLDER

from quatrain.errors import InputError, QuatrainError
from quatrain.program import Operator, open_program
from quatrain.runtime.reference import ReferenceRunner
from quatrain.runtime.wgpu.adapters import list_adapters, pick_adapter
from quatrain.runtime.wgpu.buffers import assign_buffers
from quatrain.runtime.wgpu.device import Gpu, explained
from quatrain.runtime.wgpu.dispatches.dispatch import Operand, Traits, dispatch
from quatrain.runtime.wgpu.dispatches.linear import Weights, int4_linear
from quatrain.runtime.wgpu.runner import WgpuRunner

ARTIFACTS = sorted(path for path in FOLDER.glob("*.pte") if "xnnpack" not in path.stem)
PLAIN = next(path for path in ARTIFACTS if path.stem == "peer-8da4w-fp32")


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.float() - want.float()).norm() / want.float().norm())


def at(position: int) -> torch.Tensor:
    return torch.tensor([position])


@needs_gpu
@pytest.mark.parametrize("path", ARTIFACTS, ids=lambda path: path.stem)
def test_prefill_and_decode_equal_the_reference(path: Path) -> None:
    gpu, reference = WgpuRunner(path), ReferenceRunner(path)
    calls = tuple(itertools.pairwise(itertools.accumulate((1, 7, 1, 1, 2, 9, 1), initial=0)))

    def text(generator: torch.Generator) -> torch.Tensor:
        return torch.randint(64, (1, calls[-1][1]), generator=generator)

    if "fp16" not in path.stem:
        assert_equal_but_for_rounding(gpu, reference, text, calls)
        return
    # fp16 rounds after other sums on each side, and a rounding can flip an int8.
    tokens = text(torch.Generator().manual_seed(0))
    pairs = zip(called(gpu, tokens, calls), called(reference, tokens, calls), strict=True)
    for got, want in pairs:
        assert got.shape == want.shape and got.dtype == want.dtype
        assert relative_error(got, want) < 2e-2


@needs_gpu
def test_a_norm_of_a_norm_is_two() -> None:
    """One dispatch makes a row, normalizes it once and quantizes it."""
    program = open_program(PLAIN)
    graph = program.vulkan
    place, norm = next(
        (i, op) for i, op in enumerate(graph.operators) if op.kind == "et_vk.rms_norm"
    )
    graph.values.append(replace(graph.tensor(norm.out), mem_obj_id=None))
    twice = len(graph.values) - 1
    rest = [
        replace(op, args=tuple(twice if arg == norm.out else arg for arg in op.args))
        for op in graph.operators[place + 1 :]
    ]
    again = replace(norm, args=(norm.out, *norm.args[1:-1], twice))
    graph.operators[place + 1 :] = [again, *rest]

    def text(generator: torch.Generator) -> torch.Tensor:
        return torch.randint(64, (1, 6), generator=generator)

    runners = WgpuRunner(program), ReferenceRunner(program)
    assert_equal_but_for_rounding(*runners, text, ((0, 5), (5, 6)))


@needs_gpu
def test_reset_forgets() -> None:
    runner = WgpuRunner(PLAIN)
    fresh = runner.forward(torch.tensor([[3]]), at(4))
    runner.forward(torch.tensor([[9, 8, 7, 6]]), at(0))
    assert relative_error(runner.forward(torch.tensor([[3]]), at(4)), fresh) > 1e-3
    runner.reset()
    assert torch.equal(runner.forward(torch.tensor([[3]]), at(4)), fresh)


@needs_gpu
def test_steps_reuse_pipelines_and_bind_groups() -> None:
    runner = WgpuRunner(PLAIN)
    runner.forward(torch.tensor([[1]]), at(0))
    plans, pipelines = dict(runner._plans), dict(runner.gpu._pipelines)
    for position in range(1, 4):
        runner.forward(torch.tensor([[1]]), at(position))
    assert runner._plans == plans and runner.gpu._pipelines == pipelines


@needs_gpu
def test_profile_times_each_dispatch() -> None:
    runner = WgpuRunner(PLAIN)
    timings = runner.profile(torch.tensor([[1]]), at(0))
    assert sum("linear" in timing.kernel for timing in timings) == sum(
        "linear" in operator.kind for operator in runner.graph.operators
    )
    assert all(timing.nanoseconds >= 0 for timing in timings)
    assert sum(timing.nanoseconds for timing in timings) > 0


@needs_gpu
def test_unknown_operator_is_refused_by_name_before_anything_runs() -> None:
    program = open_program(PLAIN)
    operators = program.vulkan.operators
    operators[-1] = Operator("et_vk.conv_with_clamp.default", operators[-1].args)
    with pytest.raises(InputError, match="conv_with_clamp"):
        WgpuRunner(program)


@needs_gpu
def test_past_the_context_is_refused() -> None:
    runner = WgpuRunner(PLAIN)
    with pytest.raises(InputError, match="do not fit the program's context"):
        runner.forward(torch.tensor([[1]]), at(10_000))
    with pytest.raises(InputError, match="shorter prompt"):
        runner.forward(torch.zeros(1, 10_000, dtype=torch.int64), at(0))
    with pytest.raises(InputError, match=r"expected int64\[1, 31\], int64\[1\]"):
        runner.forward(torch.zeros(1, 1, dtype=torch.int64))


@needs_gpu
def test_unknown_adapter_is_refused_with_what_there_is() -> None:
    with pytest.raises(InputError, match="no GPU adapter is called 'voodoo'; there are: 0: "):
        pick_adapter("voodoo")


def test_no_adapter_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quatrain.runtime.wgpu.adapters.list_adapters", lambda: ())
    with pytest.raises(InputError, match="mesa-vulkan-drivers"):
        pick_adapter()


@needs_gpu
def test_a_buffer_past_the_limit_is_refused() -> None:
    gpu = Gpu()
    with pytest.raises(InputError, match="binds at most"):
        gpu.buffer(gpu.info.max_binding + 16, "the embedding")


@needs_gpu
def test_a_kernel_that_does_not_compile_is_a_clear_error() -> None:
    with (
        pytest.raises(QuatrainError, match=r"the GPU failed while compiling .*`quatrain selftest`"),
        explained("compiling a kernel"),
    ):
        Gpu().compile("this is no shader")


def test_a_lost_device_and_exhausted_memory_are_explained() -> None:
    wgpu = pytest.importorskip("wgpu")
    with pytest.raises(QuatrainError, match="was lost while running"), explained("running a step"):
        raise RuntimeError("Parent device is lost")
    with pytest.raises(QuatrainError, match="out of memory while"), explained("uploading"):
        raise wgpu.GPUOutOfMemoryError("no memory")


def test_memory_is_reused_but_never_within_a_dispatch() -> None:
    values = [Operand(("value", i), "f32", (100,)) for i in range(6)]
    chain = [
        dispatch("elementwise", [a, b], (100,), lambda p: (1, 1, 1))
        for a, b in itertools.pairwise(values)
    ]

    class Memory:
        def __init__(self, size: int):
            self.size = size

    made: list[Memory] = []

    def allocate(size: int) -> Memory:
        made.append(Memory(size))
        return made[-1]

    memory = assign_buffers(chain, set(), allocate)
    assert len(made) == 2
    for step in chain:
        assert len({id(memory[operand.key]) for operand in step.operands}) == 2


@needs_gpu
def test_constants_are_uploaded_once() -> None:
    runner = WgpuRunner(PLAIN)
    runner.forward(torch.tensor([[1]]), at(0))
    before = {key: id(buffer) for key, buffer in runner._resident._buffers.items()}
    runner.forward(torch.tensor([[1, 2, 3]]), at(1))
    assert {
        key: id(buffer) for key, buffer in runner._resident._buffers.items() if key in before
    } == before


def test_numbers_survive_upload() -> None:
    if not list_adapters():
        pytest.skip("no Vulkan adapter")
    gpu = Gpu()
    data = np.arange(7, dtype=np.uint8)  # not a multiple of four bytes
    buffer, staging = gpu.upload(data, "bytes"), gpu.staging(16)
    encoder = gpu.device.create_command_encoder()
    encoder.copy_buffer_to_buffer(buffer, 0, staging, 0, 16)
    gpu.device.queue.submit([encoder.finish()])
    assert gpu.read(staging, "uint8")[:7].tolist() == data.tolist()


@pytest.mark.parametrize(("channels", "kernel"), [(262140, "lanes"), (262144, "rows")])
def test_no_grid_is_wider_than_a_gpu_takes(channels: int, kernel: str) -> None:
    def operand(dtype: str, *shape: int) -> Operand:
        return Operand((dtype, shape), dtype, shape)

    weights = Weights(operand("u8", channels, 16), operand("f32", 1, channels), 32)
    made = int4_linear(
        operand("f32", 1, 32), weights, operand("f32", 1, channels), Traits(False, True)
    )
    assert made.kernel == f"linear_{kernel}"
    assert max(made.grid((1, 0, 0, 0))) <= 65535
