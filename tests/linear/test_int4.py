"""The int4 linears against torchao's own module and primitives, bit for bit."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torchao.quantization.linear_quant_modules import (
    Int8DynActInt4WeightLinear as TorchaoInt8DynActInt4WeightLinear,
)
from torchao.quantization.quant_primitives import dequantize_affine

from quatrain.linear import Int8DynActInt4WeightLinear, WeightOnlyInt4Linear
from quatrain.linear.int4 import freeze_weights

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@st.composite
def layers(draw):
    """A pre-quantized state dict, its sizes and dtype, and an input with a wide range."""
    group = draw(st.sampled_from([16, 32, 64, 128, 256]))
    columns = group * draw(st.integers(1, 3))
    rows = draw(st.integers(1, 40))
    tokens = draw(st.integers(1, 5))
    dtype = draw(st.sampled_from(DTYPES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    state = {
        "weight": torch.randint(-8, 8, (rows, columns), generator=generator, dtype=torch.int8),
        "scales": (torch.rand(rows, columns // group, generator=generator) + 0.01).to(dtype),
        "zeros": torch.zeros(rows, columns // group, dtype=dtype),
    }
    if draw(st.booleans()):
        state["bias"] = torch.randn(rows, generator=generator).to(dtype)
    spread = draw(st.sampled_from([1e-3, 1.0, 30.0]))
    shift = draw(st.sampled_from([-2.0, 0.0, 2.0]))
    x = (torch.randn(1, tokens, columns, generator=generator) * spread + shift).to(dtype)
    return state, group, dtype, x


def build(kind, state, group, dtype, **options):
    rows, columns = state["weight"].shape
    module = kind(
        columns,
        rows,
        bias="bias" in state,
        groupsize=group,
        precision=dtype,
        scales_precision=dtype,
        **options,
    )
    module.load_state_dict(state)
    return module


@settings(max_examples=60, deadline=None)
@given(layers())
def test_dynamic_activation_equals_torchao(layer):
    state, group, dtype, x = layer
    ours = build(Int8DynActInt4WeightLinear, state, group, dtype)
    theirs = build(TorchaoInt8DynActInt4WeightLinear, state, group, dtype)
    assert torch.equal(ours(x), theirs(x))


@settings(max_examples=60, deadline=None)
@given(layers())
def test_weight_only_equals_dequantize_then_linear(layer):
    state, group, dtype, x = layer
    weight = dequantize_affine(
        state["weight"],
        (1, group),
        state["scales"],
        state["zeros"],
        torch.int8,
        -8,
        7,
        output_dtype=dtype,
    )
    ours = build(WeightOnlyInt4Linear, state, group, dtype)
    assert torch.equal(ours(x), F.linear(x, weight, state.get("bias")))
    freeze_weights(ours)
    assert torch.equal(ours.dequantized_weight(), weight)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [WeightOnlyInt4Linear, Int8DynActInt4WeightLinear])
def test_frozen_weights_change_no_bit_and_no_state(kind, dtype):
    linear = kind(64, 8, groupsize=32, precision=dtype)
    linear.weight.random_(-8, 8)
    linear.scales.uniform_(0.1, 1.0)
    linear.zeros.random_(-3, 4)
    x = torch.randn(3, 64)
    before, names = linear(x), set(linear.state_dict())
    freeze_weights(linear)
    assert torch.equal(linear(x), before)
    assert set(linear.state_dict()) == names


def test_groups_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="48 is not a multiple of groupsize 32"):
        WeightOnlyInt4Linear(48, 8, groupsize=32)


@pytest.mark.parametrize("kind", [WeightOnlyInt4Linear, Int8DynActInt4WeightLinear])
def test_traced_nodes_per_layer_are_few_and_constant(kind):
    def nodes(depth):
        stack = torch.nn.Sequential(*[kind(32, 32, bias=False, groupsize=32) for _ in range(depth)])
        program = torch.export.export(stack, (torch.randn(1, 4, 32),))
        targets = [n.target for n in program.graph.nodes if n.op == "call_function"]
        assert not [t for t in targets if "set_grad_enabled" in str(t)]
        return len(targets)

    two, four = nodes(2), nodes(4)
    per_layer = (four - two) / 2
    assert per_layer == two / 2
    # choose_qparams and its two results, quantize, dequantize twice, linear
    assert per_layer == (7 if kind is Int8DynActInt4WeightLinear else 2)
