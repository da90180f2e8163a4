"""Operators that any model may hold, on the GPU, as torch computes them; shapes are odd."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.ao.quantization.fx._decomposed
import torch.nn.functional as F
from tests.support.devices import needs_gpu
from tests.support.programs import GraphMaker

from quatrain.program import ValueList
from quatrain.runtime.wgpu.runner import WgpuRunner

pytestmark = needs_gpu
NAN, INF = float("nan"), float("inf")
SEED = torch.Generator().manual_seed(0)


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=SEED)


def whole(*shape: int) -> torch.Tensor:
    return torch.randint(-4, 5, shape, generator=SEED, dtype=torch.int32)


BIG = torch.tensor([2**24 + 1, -(2**30) - 1, 2**31 - 1, 0], dtype=torch.int32)
ODD = torch.tensor([7, 2**24 + 3, -(2**30) + 1, -3], dtype=torch.int32)
NANS = torch.tensor([[1.0, NAN, 3, -INF], [NAN, 2, INF, 0], [-INF, -INF, 5, NAN]])
MASK = torch.where(torch.rand(1, 1, 3, 5, generator=SEED) < 0.3, -INF, 0.0)

# The operator, and its arguments in the order of its schema.
CASES: list[tuple[Any, ...]] = [
    ("add.Tensor", BIG, ODD, 1),
    ("sub.Tensor", BIG, ODD, 3),
    ("mul.Tensor", ODD, whole(4)),
    ("neg", BIG),
    ("abs", BIG),
    ("minimum", BIG, ODD),
    ("ge.Tensor", BIG, ODD),
    ("eq.Scalar", BIG, 2**24 + 1),
    ("ne.Scalar", BIG, 2**24),
    ("lt.Scalar", ODD, 2**24 + 4),
    ("where.self", whole(4) > 0, BIG, ODD),
    ("clamp", BIG, -5, 2**24),
    ("sum.dim_IntList", BIG, [0], False),
    ("bitwise_and.Tensor", BIG, ODD),
    ("bitwise_or.Tensor", whole(2, 3), whole(3)),
    ("bitwise_not", BIG),
    ("bitwise_not", whole(5) > 0),
    ("logical_not", whole(5)),
    ("amax", BIG, [0], True),
    ("argmin", whole(3, 5), 1, False),
    ("add.Tensor", randn(2, 1, 3, 1, 2), randn(4, 3, 5, 1), 2),
    ("mul.Tensor", randn(3, 1), randn(1, 5)),
    ("div.Tensor_mode", whole(3, 5), torch.tensor([3, -2, 1, 4, -5], dtype=torch.int32), "floor"),
    ("minimum", NANS, torch.tensor([1.0, NAN, NAN, 2])),
    ("clamp", NANS, -1.0, None),
    ("relu", NANS),
    ("hardtanh", randn(9), -0.5, 0.7),
    ("leaky_relu", randn(9), 0.2),
    ("hardshrink", randn(9), 0.5),
    ("hardswish", randn(9) * 4),
    ("round", torch.arange(-5, 6) / 2),
    ("log10", randn(7).abs()),
    ("gelu", randn(33) * 3, "none"),
    (
        "pow.Tensor_Tensor",
        torch.tensor([2.0, -2, -2, -8, 0, 3, 1]),
        torch.tensor([3.0, 3, 2, 0.5, 0, -1, NAN]),
    ),
    ("pow.Tensor_Scalar", torch.tensor([1.5, -2.0, 0.0]), 3),
    ("pow.Tensor_Scalar", randn(5).abs(), 1.7),
    ("pow.Tensor_Tensor", whole(4), torch.tensor([2, 0, 5, 3], dtype=torch.int32)),
    ("where.self", whole(3, 1) > 0, randn(3, 4), randn(1)),
    ("amax", NANS, [1], False),
    ("amin", NANS, [0], True),
    ("amax", torch.full((2, 3), -INF), [1], False),
    ("argmax", NANS, 1, True),
    ("argmax", randn(3, 7), None, False),
    ("argmin", NANS, 0, False),
    ("mean.dim", randn(3, 5, 7), [0, 2], False),
    ("sum.dim_IntList", randn(3, 5, 7), [1], True),
    ("amin", randn(2, 3, 5, 7), [1, 2], False),
    ("sum.dim_IntList", randn(3, 5), None, False),
    ("full", [2, 3], -INF),
    ("ones", [3]),
    ("zeros_like", randn(2, 3)),
    ("scalar_tensor", 2.5),
    ("arange.start_step", -3, 11, 4),
    ("expand_copy", randn(3, 1, 2), [4, -1, 5, 2]),
    ("repeat", randn(2, 3), [2, 1, 3]),
    ("flip", randn(2, 3, 5), [0, -1]),
    ("t_copy", randn(3, 5)),
    ("permute", randn(2, 3, 5), [2, 0, 1]),
    ("unfold_copy", randn(2, 9), 1, 4, 2),
    ("pixel_shuffle", randn(2, 12, 3, 2), 2),
    ("constant_pad_nd", randn(2, 3, 5), [2, 0, 0, 1], -0.5),
    ("constant_pad_nd", whole(3), [1, 2], 2**24 + 1),
    ("split_with_sizes_copy", randn(2, 9, 3), [4, 2, 3], -2),
    ("gather", randn(3, 5), 1, torch.tensor([[4, 0], [1, 1], [2, 3]], dtype=torch.int32)),
    (
        "gather",
        randn(3, 5, 2),
        0,
        torch.randint(0, 3, (2, 4, 2), generator=SEED, dtype=torch.int32),
    ),
    ("index_select", randn(4, 5, 3), 1, torch.tensor([4, 0, 2], dtype=torch.int32)),
    ("index.Tensor", randn(4, 5, 3), [None, torch.tensor([[4, -1], [-5, 2]], dtype=torch.int32)]),
    ("mm", randn(3, 7), randn(7, 5)),
    ("bmm", randn(2, 3, 7), randn(2, 7, 5)),
    ("addmm", randn(5), randn(3, 7), randn(7, 5), 2, 0.5),
    ("addmm", randn(3, 5), randn(3, 7), randn(7, 5), 1, 1),
    ("_softmax", randn(3, 5, 2), 1, False),
    ("_log_softmax", randn(3, 7) * 9, -1, False),
    ("_softmax", MASK.reshape(3, 5), -1, False),
    ("native_layer_norm", randn(2, 3, 70) + 9, [70], randn(70), randn(70), 1e-5),
    ("native_layer_norm", randn(4, 3, 5), [3, 5], None, None, 1e-5),
    ("convolution", randn(2, 6, 9), randn(6, 1, 3), None, [1], [2], [1], False, [0], 6),
    ("convolution", randn(1, 4, 7), randn(6, 2, 3), randn(6), [2], [1], [2], False, [0], 2),
    (
        "convolution",
        randn(1, 4, 5, 7),
        randn(3, 4, 2, 3),
        randn(3),
        [2, 1],
        [0, 1],
        [1, 2],
        False,
        [0, 0],
        1,
    ),
    ("convolution", randn(1, 4, 5), randn(4, 3, 3), randn(6), [2], [1], [1], True, [1], 2),
    (
        "convolution",
        randn(2, 3, 4, 2),
        randn(3, 2, 3, 2),
        None,
        [2, 3],
        [1, 0],
        [1, 2],
        True,
        [1, 0],
        1,
    ),
]


def of_torch(name: str, *arguments: Any) -> tuple[Any, ...]:
    """The operator, the arguments that a graph stores, and what torch makes of them."""
    packet, overload = (*name.split("."), "default")[:2]
    call = getattr(getattr(torch.ops.aten, packet), overload)
    schema = call._schema.arguments
    rest = [s.default_value for s in schema[len(arguments) :]]
    named = {s.name: x for s, x in zip(schema, arguments, strict=False) if s.kwarg_only}
    positional = arguments[: len(arguments) - len(named)]
    if packet in ("gather", "index_select", "index"):
        positional = [_long(x) if i else x for i, x in enumerate(positional)]
    stored = (*arguments, *rest)
    return f"aten.{packet}.{overload}", stored, call(*positional, **named)


def _long(x: Any) -> Any:
    """The indices that torch takes, of those that a graph holds."""
    if isinstance(x, list):
        return [_long(each) for each in x]
    return x.long() if isinstance(x, torch.Tensor) else x


def of_vulkan() -> Iterator[tuple[Any, ...]]:
    """The same of operators that torch does not have, in torch's terms."""
    packed = torch.randint(0, 256, (5, 7), generator=SEED, dtype=torch.uint8)
    integers = torch.stack((packed >> 4, packed & 15), -1).flatten(1).float() - 8
    scales, x = torch.rand(5, generator=SEED), randn(3, 14)
    yield "et_vk.linear_qcs4w.default", (x, packed, scales), x @ (integers * scales[:, None]).T
    weight = torch.randint(-127, 128, (5, 14), generator=SEED, dtype=torch.int8)
    want = x @ (weight * scales[:, None]).T
    yield "aten._weight_int8pack_mm.default", (x, weight, scales), want
    q, k, v = randn(2, 2, 3, 6), randn(2, 2, 5, 6), randn(2, 2, 5, 6)
    for mask, scale in ((None, None), (MASK, 0.3)):
        want = F.scaled_dot_product_attention(q, k, v, mask, scale=scale)
        yield "et_vk.sdpa.default", (q, k, v, mask, scale), want
    x, angles = randn(2, 3, 4), randn(1, 3, 2, 2)
    turned = torch.view_as_complex(x.view(2, 3, 2, 2)) * torch.view_as_complex(angles)
    want = torch.view_as_real(turned).flatten(-2)
    yield "et_vk.apply_rotary_emb_interleaved.default", (x, angles), want
    x, weight, bias = randn(1, 2, 5), randn(3, 2, 2), randn(3)
    case = (x, weight, bias, [1], [0], [1], False, [0], 1, -0.5, None)
    yield "et_vk.conv_with_clamp.default", case, F.conv1d(x, weight, bias).clamp(-0.5)
    x, ops = torch.arange(-40, 40) * 0.0155, torch.ops.quantized_decomposed
    want = ops.quantize_per_tensor(x, 0.031, -7, -12, 12, torch.int8)
    name = "quantized_decomposed.quantize_per_tensor.default"
    yield name, (x, 0.031, -7, -12, 12, None), want
    name, x = "quantized_decomposed.dequantize_per_tensor.default", want
    want = ops.dequantize_per_tensor(x, 0.031, -7, -128, 127, torch.int8)
    yield name, (x, 0.031, -7, -128, 127, None, None), want


ALL = [*(of_torch(*case) for case in CASES), *of_vulkan()]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[list[torch.Tensor]]:
    """What one program of all calls makes, a list for each."""
    maker, given, outs = GraphMaker(), [], []
    for name, arguments, want in ALL:
        ids = [_value(maker, x, given) for x in arguments]
        several = isinstance(want, tuple | list)
        typed = [(str(x.dtype)[6:].replace("64", "32"), x) for x in (want if several else [want])]
        made = [maker.tensor(dtype, *x.shape) for dtype, x in typed]
        maker.call(name, *ids, maker.add(ValueList(tuple(made))) if several else made[0])
        outs.append(made)
    path = tmp_path_factory.mktemp("operators") / "all.pte"
    seen: dict[int, torch.Tensor] = {}

    def keep(value_id: int, value: torch.Tensor) -> torch.Tensor:
        seen[value_id] = value
        return value

    flat = [out for made in outs for out in made]
    WgpuRunner(maker.save(path, flat)).trace(set(flat), keep, *given)
    return [[seen[out] for out in made] for made in outs]


@pytest.mark.parametrize("number", range(len(ALL)), ids=lambda number: f"{number}-{ALL[number][0]}")
def test_results_are_torchs(number: int, results: list[list[torch.Tensor]]) -> None:
    want = ALL[number][-1]
    wanted = want if isinstance(want, tuple | list) else [want]
    for got, expected in zip(results[number], wanted, strict=True):
        got = got.to(expected.dtype)
        torch.testing.assert_close(got, expected, atol=2e-5, rtol=2e-5, equal_nan=True)


def _value(maker: GraphMaker, x: Any, given: list[torch.Tensor]) -> int:
    """An input, which is added to `given`; a constant, of bytes; or a fixed value."""
    if isinstance(x, torch.Tensor):
        if x.element_size() == 1 and x.dtype != torch.bool:
            return maker.constant(x.numpy())
        given.append(x)
        return maker.input(str(x.dtype)[6:], *x.shape)
    if isinstance(x, list) and any(isinstance(each, torch.Tensor) for each in x):
        return maker.add(ValueList(tuple(_value(maker, each, given) for each in x)))
    if isinstance(x, list):
        return maker.plain("int_list", tuple(x))
    kinds = {bool: "bool", int: "int", float: "double", str: "string", type(None): "null"}
    return maker.plain(kinds[type(x)], x)
