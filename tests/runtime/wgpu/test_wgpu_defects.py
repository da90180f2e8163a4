"""Emulated defects: the GPU and the reference compute the same wrong thing, where it is wrong."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.support.devices import needs_gpu
from tests.support.paths import ARTIFACTS as FOLDER

from quatrain.errors import InputError
from quatrain.runtime.defects import EmulatedDefect
from quatrain.runtime.reference import ReferenceRunner
from quatrain.runtime.reference.defective_kernels import defective_linear_dynamic
from quatrain.runtime.reference.int4_linears import misread_sums
from quatrain.runtime.reference.quantized import dense_weight
from quatrain.runtime.wgpu.device import Gpu
from quatrain.runtime.wgpu.dispatches.linear import int4_linear
from quatrain.runtime.wgpu.dispatches.rows import Row
from quatrain.runtime.wgpu.runner import WgpuRunner
from quatrain.runtime.wgpu.selftest.bench import Bench, Case, Made, run_case
from quatrain.runtime.wgpu.selftest.linear_cases import random_weights
from quatrain.runtime.wgpu.selftest.row_cases import int8_operands, quantized

TOKENS = torch.tensor([[3, 17, 40, 9, 22, 61, 5, 33, 12]])
START = torch.tensor([0])

pytestmark = needs_gpu


def _error(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got - want).norm() / want.norm())


@pytest.mark.parametrize("defect", ["dq8ca-zp-binding-float", "dq8ca-zp-binding-int8"])
def test_8da4w_is_garbled_and_weight_only_untouched(defect: str) -> None:
    broken, whole = FOLDER / "peer-8da4w-fp32.pte", FOLDER / "peer-weight-only-fp32.pte"
    for runner in (ReferenceRunner, WgpuRunner):
        right = runner(broken).forward(TOKENS, START)
        assert _error(runner(broken, emulate=defect).forward(TOKENS, START), right) > 0.3
        untouched = runner(whole, emulate=defect).forward(TOKENS, START)
        assert torch.equal(untouched, runner(whole).forward(TOKENS, START))


@pytest.mark.parametrize("kernel", ["rows", "any"])
@pytest.mark.parametrize("defect", [d for d in EmulatedDefect if d.startswith("dq8ca")])
@pytest.mark.parametrize("apart", [0, 4])
def test_each_kernel_makes_the_same_mistake_as_the_reference(
    defect: EmulatedDefect, kernel: str, apart: int
) -> None:
    """M = 70 rows of K = 32 or 36 channels: past the undersized buffer of sums. Groups of 68 and
    256: summed by a worker in more than one round. Sums of groups as the kernel steps over them,
    or `apart` places further from each other."""
    k, group = (36, 12) if kernel == "any" else (32, 32)
    if defect == EmulatedDefect.GROUP_SUMS:
        k, group = (136, 68) if kernel == "any" else (512, 256)
    m, n = 70, 9

    def make(bench: Bench) -> Made:
        x = bench.normal("x", m, k)
        weights, _ = random_weights(bench, n, k, group, False)
        sums = np.pad(bench.arrays["sums"], ((0, 0), (0, apart)))
        weights = replace(weights, sums=bench.put("sums", sums, dtype="i32"))
        y = bench.out("y", m, n)
        scale, zero, _ = quantized(bench.arrays["x"])
        packed = torch.from_numpy(bench.arrays["w"])[:, : k // 2]
        scales = torch.from_numpy(bench.arrays["scales"])[:, :n]
        want = defective_linear_dynamic(
            defect,
            torch.from_numpy(bench.arrays["x"]),
            torch.from_numpy(scale),
            torch.from_numpy(zero),
            dense_weight(packed, scales, group),
            None,
            scales,
            group,
            misread_sums(torch.from_numpy(sums), packed, group),
        )
        out = int8_operands(bench, m, k)
        dispatches = [
            Row(x, quantized=out).dispatch(bench.traits, defect),
            int4_linear(x, weights, y, bench.traits, out, defect),
        ]
        return dispatches, {"y": want.numpy()}

    assert run_case(Gpu(), Case("defective", f"{defect}-{kernel}", "f32", make)) < 1e-6


def test_rows_within_the_buffer_of_sums_are_right() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 128, generator=generator)
    dense = torch.randn(8, 128, generator=generator)
    scale, zero, integers = quantized(x.numpy())
    right = torch.from_numpy(scale)[:, None] * torch.from_numpy(integers - zero[:, None]) @ dense.T
    got = defective_linear_dynamic(
        EmulatedDefect.MORE_ROWS_THAN_SUMS,
        x,
        torch.from_numpy(scale),
        torch.from_numpy(zero),
        dense,
        None,
        torch.ones(4, 8),
        32,
    )
    # 4 groups hold 128 blocks of 4 rows; 2 groups of all 64 blocks fit.
    assert _error(got, right.float()) > 0.1
    short = defective_linear_dynamic(
        EmulatedDefect.MORE_ROWS_THAN_SUMS,
        x[:128],
        torch.from_numpy(scale[:128]),
        torch.from_numpy(zero[:128]),
        dense,
        None,
        torch.ones(4, 8),
        32,
    )
    assert _error(short, right[:128].float()) < 1e-6


def test_an_unknown_defect_is_refused_with_those_there_are() -> None:
    for runner in (ReferenceRunner, WgpuRunner):
        with pytest.raises(InputError, match="known are: dq8ca-zp-binding-float"):
            runner(FOLDER / "peer-8da4w-fp32.pte", emulate="buffer-limit")
