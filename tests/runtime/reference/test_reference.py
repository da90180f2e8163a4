"""The reference runtime against ExecuTorch's eager model and its own CPU operators."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.comparisons.rounding import called, rounding_explains
from tests.support.programs import (
    ARTIFACTS,
    PROMPT,
    TOKENS,
    VULKAN,
    GraphMaker,
    artifact,
)
from torchao.quantization.quant_primitives import MappingType, choose_qparams_affine

from quatrain.arithmetic import VULKAN_ARITHMETIC, XNNPACK_ARITHMETIC
from quatrain.errors import InputError
from quatrain.program import Plain, open_program
from quatrain.runtime.reference import ReferenceRunner
from quatrain.runtime.reference.attention import ATTENTION_KERNELS
from quatrain.runtime.reference.kernels import KERNELS
from quatrain.runtime.reference.quantized import (
    QUANTIZED_KERNELS,
    dense_weight,
    fake_quantize,
    linear_weight_only,
)
from quatrain.runtime.runner import forward_in_parts


@pytest.mark.parametrize("name", VULKAN)
def test_logits_are_those_of_the_peers_eager_model(name: str) -> None:
    """make_artifacts.py saved them: a prompt of six tokens, then three steps of decode. In eager
    mode torchao quantizes every row, which no Vulkan runtime does (test_conformance.py)."""
    runner = ReferenceRunner(artifact(name), arithmetic=XNNPACK_ARITHMETIC)
    calls = ((0, PROMPT), *((at, at + 1) for at in range(PROMPT, len(TOKENS))))
    got = torch.cat(called(runner, torch.tensor([TOKENS]), calls)).numpy()
    wanted = np.load(ARTIFACTS / f"{name}.npy")
    error = np.linalg.norm(got - wanted) / np.linalg.norm(wanted)
    if "fp16" in name:  # the eager model computed in fp32
        assert error < (0.03 if "8da4w" in name else 3e-3)
    else:
        same = (got.argmax(axis=1) == wanted.argmax(axis=1)).all()
        text = torch.tensor([TOKENS])
        assert (error < 1e-6 and same) or rounding_explains(error, runner, text, calls)


def test_reset_forgets_and_decode_equals_prefill() -> None:
    runner = ReferenceRunner(artifact("peer-weight-only-fp32"))
    first = runner.forward(torch.tensor([TOKENS[:PROMPT]]), torch.tensor([0]))
    for position, token in enumerate(TOKENS[:PROMPT]):
        last = runner.forward(torch.tensor([[token]]), torch.tensor([position]))
    assert torch.allclose(first, last, rtol=1e-5, atol=1e-5)
    runner.reset()
    assert runner.forward(torch.tensor([TOKENS[:PROMPT]]), torch.tensor([0])).equal(first)


def test_two_runners_do_not_share_state() -> None:
    program = open_program(artifact("peer-8da4w-fp32"))
    one, two = ReferenceRunner(program), ReferenceRunner(program)
    one.forward(torch.tensor([TOKENS]), torch.tensor([0]))
    alone = two.forward(torch.tensor([[5]]), torch.tensor([1]))
    fresh = ReferenceRunner(program).forward(torch.tensor([[5]]), torch.tensor([1]))
    assert alone.equal(fresh)


def test_metadata_comes_along_and_calls_fit_the_method() -> None:
    runner = ReferenceRunner(artifact("peer-8da4w-fp32"))
    assert open_program(artifact("peer-8da4w-fp32")).metadata["get_max_seq_len"] == 32
    assert runner.metadata["get_max_context_len"] == 32
    assert runner.metadata["get_max_seq_len"] == 31  # ExecuTorch's exporter traces one less
    assert forward_in_parts(runner, torch.ones(1, 32, dtype=torch.int64), 0).isfinite().all()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (([[1, 2]],), r"8da4w-fp32.*\.pte: 1 inputs given, expected int"),
        (([[1] * 40], [0]), "shape .1, 40. does not fit"),
        (([1, 2], [0]), "does not fit"),
        (([[1] * 30], [20]), "positions 20 to 49 do not fit the program's context of 32"),
        (([[64]], [0]), "token id 64 is not in the vocabulary"),
        (([[-1]], [0]), "token id -1 is not in the vocabulary"),
    ],
)
def test_wrong_inputs_are_refused(inputs: tuple, message: str) -> None:
    runner = ReferenceRunner(artifact("peer-8da4w-fp32"))
    with pytest.raises(InputError, match=message):
        runner.forward(*(torch.tensor(each) for each in inputs))


def test_work_outside_the_delegate_is_refused() -> None:
    with pytest.raises(InputError, match="no Vulkan delegate"):
        ReferenceRunner(artifact("peer-xnnpack-8da4w"))


def test_an_unknown_operator_is_named_before_anything_runs(tmp_path: Path) -> None:
    maker = GraphMaker()
    x, out = maker.input("float32", 2), maker.tensor("float32", 2)
    maker.call("aten.made_up.default", x, out)
    path = maker.save(tmp_path / "unknown.pte", [out])
    with pytest.raises(InputError, match=r"no kernel for aten\.made_up\.default"):
        ReferenceRunner(path)


def test_an_operator_that_fails_is_named(tmp_path: Path) -> None:
    maker = GraphMaker()
    x, y, out = maker.input("float32", 2), maker.input("float32", 3), maker.tensor("float32", 2)
    maker.call("aten.mul.Tensor", x, y, out)
    runner = ReferenceRunner(maker.save(tmp_path / "wrong.pte", [out]))
    with pytest.raises(InputError, match=r"operator 0, aten\.mul\.Tensor, cannot be computed"):
        runner.forward(torch.ones(2), torch.ones(3))


def test_results_take_the_declared_type(tmp_path: Path) -> None:
    """fp16 values are computed in fp32 and rounded; the output is handed out as fp32."""
    maker = GraphMaker()
    x = maker.input("float16", 2)
    out = maker.add(maker.graph.tensor(x))
    maker.call("aten.exp.default", x, out)
    runner = ReferenceRunner(maker.save(tmp_path / "half.pte", [out]))
    got = runner.forward(torch.tensor([1.0, 2.0]))
    assert got.equal(torch.tensor([1.0, 2.0]).exp().half())


# ExecuTorch's own CPU operators, on random tensors.


@pytest.fixture(scope="module")
def et_vk():
    import executorch.backends.vulkan.custom_ops_lib  # noqa: F401

    return torch.ops.et_vk


def packed_linear(rows: int, columns: int, group: int) -> tuple[torch.Tensor, torch.Tensor]:
    packed = torch.randint(0, 256, (rows, columns // 2), dtype=torch.uint8)
    return packed, torch.rand(columns // group, rows) * 0.1 + 0.01


@pytest.mark.parametrize("group", [32, 64])
@pytest.mark.parametrize("bias", [False, True])
def test_weight_only_linear(et_vk, group: int, bias: bool) -> None:
    packed, scales = packed_linear(24, 128, group)
    x, added = torch.randn(5, 128), torch.randn(24) if bias else None
    wanted = et_vk.linear_q4gsw(x, packed, scales, group, added)
    got = linear_weight_only(x, dense_weight(packed, scales, group), added)
    assert got.equal(wanted)


def test_dynamic_quantization_equals_torchao() -> None:
    x = torch.randn(2, 7, 96) * torch.logspace(-2, 3, 7)[:, None]
    scale, zero = _chosen(x)
    wanted, back = _by_torchao(x)
    assert scale.equal(wanted[0]) and zero.to(torch.int8).equal(wanted[1])
    assert fake_quantize(x, scale, zero).equal(back)


def test_rows_below_the_smallest_scale_are_rounded_with_it() -> None:
    """torchao has no such scale; the zero point is that of the row's own range in both."""
    x = torch.randn(5, 96) * 1e-3
    scale, zero = _chosen(x)
    wanted, _ = _by_torchao(x)
    assert (wanted[0] < VULKAN_ARITHMETIC.smallest_scale).all()
    assert scale.eq(VULKAN_ARITHMETIC.smallest_scale).all()
    assert zero.to(torch.int8).equal(wanted[1])


def test_a_row_of_zeros_stays_so() -> None:
    x = torch.zeros(1, 3, 96)
    assert fake_quantize(x, *_chosen(x)).eq(0).all()


def _chosen(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    choose = QUANTIZED_KERNELS["torchao.choose_qparams_affine"]
    block = (*(1 for _ in x.shape[:-1]), x.shape[-1])
    return choose(x, "ASYMMETRIC", block, -128, 127)


def _by_torchao(x: torch.Tensor) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Scale and zero point, and x rounded with them."""
    import torchao.quantization.quant_primitives  # noqa: F401

    block = [*(1 for _ in x.shape[:-1]), x.shape[-1]]
    chosen = torch.ops.torchao.choose_qparams_affine(
        x, "ASYMMETRIC", block, torch.int8, -128, 127, None, torch.float32, torch.int8
    )
    quantized = torch.ops.torchao.quantize_affine(x, block, *chosen, torch.int8, -128, 127)
    back = torch.ops.torchao.dequantize_affine(quantized, block, *chosen, torch.int8, -128, 127)
    return chosen, back


@pytest.mark.parametrize("linear_weight", [False, True])
def test_int4_embedding(et_vk, linear_weight: bool) -> None:
    weights = torch.randint(0, 256, (50, 32), dtype=torch.uint8)
    scales, tokens = torch.rand(50, 2), torch.randint(0, 50, (1, 9))
    kernel = QUANTIZED_KERNELS["et_vk.embedding_q4gsw"]
    wanted = et_vk.embedding_q4gsw(weights, scales, 32, tokens, linear_weight)
    assert kernel(weights, scales, 32, tokens, linear_weight).equal(wanted)


def test_rms_norm(et_vk) -> None:
    x, weight = torch.randn(1, 4, 64), torch.randn(64)
    assert torch.allclose(
        KERNELS["et_vk.rms_norm"](x, weight, 1e-5), et_vk.rms_norm(x, weight, 1e-5)
    )


def test_rotary_embeddings(et_vk) -> None:
    q, k = torch.randn(1, 5, 4, 16), torch.randn(1, 5, 2, 16)
    cos, sin = torch.randn(5, 8), torch.randn(5, 8)
    got = ATTENTION_KERNELS["et_vk.apply_rotary_emb"](q, k, cos, sin)
    for ours, theirs in zip(got, et_vk.apply_rotary_emb(q, k, cos, sin), strict=True):
        assert ours.equal(theirs)
    cos, sin = (torch.randn(20, 6).repeat(1, 2) for _ in range(2))  # 12 of 16 channels are rotated
    wanted = et_vk.apply_rotary_emb_hf(q, k, cos, sin, 3)
    otherwise = torch.cat((cos[:, :6], torch.randn(20, 6)), dim=1)  # of no use to a phone
    for table in (cos, otherwise):
        got = ATTENTION_KERNELS["et_vk.apply_rotary_emb_hf"](q, k, table, sin, 3)
        for ours, theirs in zip(got, wanted, strict=True):
            assert ours.equal(theirs)


def test_interleaved_rotary_embedding(et_vk) -> None:
    x, tables = torch.randn(2, 5, 16), torch.randn(1, 5, 8, 2)
    got = ATTENTION_KERNELS["et_vk.apply_rotary_emb_interleaved"](x, tables)
    assert torch.allclose(got, et_vk.apply_rotary_emb_interleaved(x, tables))


def test_a_convolution_that_is_clamped(et_vk) -> None:
    kernel = KERNELS["et_vk.conv_with_clamp"]
    x, weights, bias = torch.randn(1, 4, 9), torch.randn(6, 2, 3), torch.randn(6)
    for low, high in ((-0.5, 0.5), (0.0, None), (None, None)):
        given = (x, weights, bias, [2], [1], [1], False, [0], 2, low, high)
        if (low, high) == (None, None):
            want = torch.convolution(*given[:-2])
        else:
            want = et_vk.conv_with_clamp(*given)
        assert kernel(*given).equal(want)
    unbounded = sys.float_info.max  # what ExecuTorch's exporter writes where there is no bound
    assert kernel(*given[:-2], 0.0, unbounded).equal(want.relu())


def test_attention_over_the_cache() -> None:
    import executorch.extension.llm.custom_ops.custom_ops  # noqa: F401

    caches = [torch.zeros(1, 12, 2, 16) for _ in range(4)]
    for start, length in ((0, 5), (5, 1), (6, 3)):
        q, k, v = (torch.randn(1, length, heads, 16) for heads in (4, 2, 2))
        got = ATTENTION_KERNELS["sdpa_with_kv_cache"](q, k, v, *caches[:2], start, None, True, None)
        wanted = torch.ops.llama.sdpa_with_kv_cache(
            q, k, v, *caches[2:], start, length, None, 0, True, None
        )
        assert torch.allclose(got, wanted, atol=1e-6)
        assert caches[0].equal(caches[2]) and caches[1].equal(caches[3])


CASES: dict[str, tuple[tuple, Callable[[torch.Tensor], torch.Tensor]]] = {
    "aten.slice_copy": ((1, -3, None, 1), lambda x: x[:, -3:]),
    "aten.select_copy": ((1, -1), lambda x: x[:, -1]),
    "aten.view_copy": (((4, -1),), lambda x: x.reshape(4, -1)),
    "aten.permute_copy": (((1, 0),), lambda x: x.t()),
    "aten.unsqueeze_copy": ((1,), lambda x: x.unsqueeze(1)),
    "aten.squeeze_copy": (((0,),), lambda x: x),
    "aten.repeat": (((2, 1),), lambda x: x.repeat(2, 1)),
    "aten.pow": ((2,), lambda x: x.pow(2)),
    "aten.neg": ((), torch.neg),
    "aten.rsqrt": ((), torch.rsqrt),
    "aten.mean": (((-1,), True, None), lambda x: x.mean(-1, keepdim=True)),
    "aten.amax": (((-1,), False), lambda x: x.amax(-1)),
    "aten._softmax": ((-1, False), lambda x: x.softmax(-1)),
    "aten.sigmoid": ((), torch.sigmoid),
    "aten.silu": ((), torch.nn.functional.silu),
    "aten._to_copy": ((None,) * 6, lambda x: x),
    "aten.add": ((2, 1), lambda x: x + 2),
    "aten.sub": ((2, 3), lambda x: x - 6),
    "aten.div": ((2,), lambda x: x / 2),
}


@pytest.mark.parametrize("kind", CASES)
def test_ordinary_operators_in_a_graph(kind: str, tmp_path: Path) -> None:
    arguments, function = CASES[kind]
    x = torch.rand(4, 6) + 0.1
    wanted = function(x)
    maker = GraphMaker()
    ids = [maker.input("float32", 4, 6)]
    for argument in arguments:
        kinds = {tuple: "int_list", type(None): "null", bool: "bool", int: "int"}
        ids.append(maker.add(Plain(kinds[type(argument)], argument)))
    out = maker.tensor("float32", *wanted.shape)
    maker.call(f"{kind}.default", *ids, out)
    runner = ReferenceRunner(maker.save(tmp_path / "one.pte", [out]))
    assert torch.allclose(runner.forward(x), wanted)


@pytest.mark.parametrize(("least", "most"), [(-128, 126), (0, 127), (-64, 63)])
def test_scales_of_a_part_of_int8_are_torchaos(least: int, most: int) -> None:
    """Zero points too, but for rounding: a phone takes them from the farther end of a range."""
    rows = torch.randn(6, 64, generator=torch.Generator().manual_seed(0)) + 0.5
    choose = QUANTIZED_KERNELS["torchao.choose_qparams_affine"]
    scale, zero = choose(rows, "ASYMMETRIC", [1, 64], least, most)
    asked = MappingType.ASYMMETRIC, (1, 64), torch.int8, least, most
    expected, zeros = choose_qparams_affine(rows, *asked)
    assert torch.allclose(scale, expected)
    assert int((zero - zeros).abs().max()) <= 1
    with pytest.raises(InputError, match=r"quantizes to \[0, 255\]"):
        choose(rows, "ASYMMETRIC", [1, 64], 0, 255)
