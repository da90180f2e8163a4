"""Kernels that sum in float16, beside what ExecuTorch's own C++ Vulkan runtime computed.

`conformance/half/linear.pte` is one weight-only linear of 2,048 inputs, `attention.pte` one
attention over a cache of 2,400 tokens in buffers, `bmm.pte`, `softmax.pte`, `layer_norm.pte` and
`dynamic.pte` (8da4w) one operator in buffers; all in float16 and written by ExecuTorch's own
partitioner. `*.npz` is what its runtime gave on lavapipe for `waves`.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.devices import RUNNERS
from tests.support.paths import CONFORMANCE

from quatrain.program import Program, open_program
from quatrain.runtime.reference import ReferenceRunner
from quatrain.targets.as_on import arithmetic_as_on

LINEAR, ATTENTION = CONFORMANCE / "half" / "linear.pte", CONFORMANCE / "half" / "attention.pte"
INPUTS, LAST = 2048, 2399  # of the linear; the last position of the cache


def waves(*shape: int) -> torch.Tensor:
    """Numbers from -1 to 1 that float16 holds exactly."""
    at = np.arange(math.prod(shape), dtype=np.int64)
    return torch.from_numpy(((at * 7919 % 2001 - 1000) / 1024).reshape(shape)).half()


PROMPT = waves(1, 8, INPUTS)


def call_of_attention(at: int, length: int = 800):
    """Queries that see all alike, keys, values around 1, and the position: what is summed up is
    large beside each term."""
    values = waves(1, 800, 1, 8)
    return (
        (waves(1, 800, 2, 8) / 8)[:, :length],
        values.flip(1)[:, :length],
        (values / 4 + 1)[:, :length],
        torch.tensor([at]),
    )


def test_a_prompts_linear_is_that_of_the_phone_bit_for_bit():
    expected = np.load(LINEAR.with_suffix(".npz"))
    assert np.array_equal(ReferenceRunner(LINEAR).forward(PROMPT).numpy(), expected["whole"])


@pytest.mark.parametrize("runner", RUNNERS)
def test_one_row_is_summed_in_float32_and_a_prompt_in_float16(runner):
    expected, opened = np.load(LINEAR.with_suffix(".npz")), runner(LINEAR)
    scale = np.abs(expected["whole"]).max()
    one = opened.forward(PROMPT[:, :1]).numpy()
    np.testing.assert_allclose(one, expected["one"], atol=1e-3 * scale)
    # A GPU may round a product and its sum at once.
    np.testing.assert_allclose(opened.forward(PROMPT).numpy(), expected["whole"], atol=6e-3 * scale)


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_sum_that_leaves_float16_on_its_way_is_infinite(runner):
    expected = np.load(LINEAR.with_suffix(".npz"))
    sizes = np.where(np.arange(INPUTS) < INPUTS // 2, 6000, -6000)
    x = torch.from_numpy(expected["signs"] * sizes).half().repeat(1, 2, 1)
    found = runner(LINEAR).forward(x)
    assert np.array_equal(np.isinf(found.numpy()), np.isinf(expected["over"]))
    assert torch.isinf(found[0, 0, 0])
    in_float32 = runner(LINEAR, arithmetic=arithmetic_as_on("mali-g715@1.3"))
    assert torch.isfinite(in_float32.forward(x)).all()


@pytest.mark.parametrize("runner", RUNNERS)
def test_inputs_are_taken_in_the_order_of_the_method(runner):
    expected = np.load(ATTENTION.with_suffix(".npz"))["last"][0]
    opened = runner(ATTENTION)
    assert len(opened.graph.tensor(opened.graph.inputs[-1]).shape) > 1
    found = opened.forward(*call_of_attention(0))[0, -1].float()
    np.testing.assert_allclose(found, expected, atol=5e-2)


@pytest.mark.parametrize("runner", RUNNERS)
def test_attention_over_a_long_context_is_that_of_the_phone(runner):
    expected, opened = np.load(ATTENTION.with_suffix(".npz")), runner(ATTENTION)
    for at, last in zip((0, 800, 1600), expected["last"], strict=True):
        found = opened.forward(*call_of_attention(at))[0, -1].float()
        np.testing.assert_allclose(found, last, atol=1e-2)
    assert abs(expected["last"][1] - 1).max() > 0.05  # 1 in float32
    step = opened.forward(*call_of_attention(LAST, 1))[0, 0].float()
    np.testing.assert_allclose(step, expected["step"], atol=5e-3)


TERMS = 2304
OPERATORS = {
    "bmm": ((waves(1, 2, TERMS) / 8).abs(), waves(1, TERMS, 4) / 4 + 1),
    "softmax": (waves(1, 2, 16384),),
}


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("name", OPERATORS)
def test_long_sums_in_buffers_are_those_of_the_phone(name, runner):
    program = CONFORMANCE / "half" / f"{name}.pte"
    expected = np.load(program.with_suffix(".npz"))["expected"].astype(np.float32)
    found = runner(program).forward(*OPERATORS[name]).float()
    if name == "softmax":
        found = found[..., ::256]
    np.testing.assert_allclose(found, expected, atol=3e-3 * expected.max())
    in_float32 = {"bmm": torch.bmm, "softmax": lambda x: x.softmax(-1)[..., ::256]}[name]
    exact = in_float32(*(x.float() for x in OPERATORS[name]))
    assert (exact - torch.from_numpy(expected)).abs().max() > 0.04 * expected.max()


# Rows whose squares float16 holds, and rows whose squares it does not.
NORMED = waves(1, 8, 128).float() * torch.tensor([1.0, 64.0]).repeat(4)[:, None]


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_layer_norm_in_buffers_is_its_bias_where_squares_leave_float16(runner):
    program = CONFORMANCE / "half" / "layer_norm.pte"
    expected = np.load(program.with_suffix(".npz"))["expected"].astype(np.float32)
    found = runner(program).forward(NORMED)
    np.testing.assert_allclose(found, expected, atol=2e-2)
    graph = open_program(program).vulkan
    bias = graph.constant(graph.operators[0].named_args["bias"])
    assert (expected[0, 1::2] == bias).all() and (expected[0, ::2] != bias).any()


def _of_any_length(path: Path) -> Program:
    """The program there, whose method takes other calls than the one that it was exported for."""
    program = open_program(path)
    for plan in program.root.execution_plan:
        for each in plan.values:
            if each.val is not None and each.val.table == "Tensor":
                each.val.shape_dynamism = 1
    return program


@pytest.mark.parametrize("runner", RUNNERS)
def test_scales_of_8da4w_in_buffers_are_multiplied_in_float16(runner):
    program = CONFORMANCE / "half" / "dynamic.pte"
    expected = np.load(program.with_suffix(".npz"))["expected"]
    rows = torch.round(waves(1, 8, 128).float() * 127) / 2**13
    rows[..., 0], rows[..., 1] = 127 / 2**13, -128 / 2**13  # the scale is a power of two
    rows *= torch.tensor([1.0, 64.0]).repeat(4)[:, None]
    found, small = runner(program).forward(rows).numpy(), slice(0, None, 2)
    np.testing.assert_allclose(found[0, small], expected[0, small], atol=2e-5)
    np.testing.assert_allclose(found[0, 1::2], expected[0, 1::2], atol=2e-3)
    one_by_one = ReferenceRunner(_of_any_length(program))  # a row alone is not quantized
    exact = torch.cat([one_by_one.forward(rows[:, i : i + 1]) for i in range(0, 8, 2)], 1).numpy()
    assert np.abs(exact - expected[:, small]).max() > 0.1 * np.abs(exact).max()
