"""Parts of a layer that XNNPACK computes as linears give what the backbone's give."""

import pytest
import torch
from tests.support.models.tiny_checkpoint import PARAMS
from tests.support.models.tiny_programs import shared_tiny_xnnpack

from quatrain.backbone.layers.norm import RMSNorm
from quatrain.backbone.layers.rope import Rope, rotary_for
from quatrain.backbone.model import Backbone
from quatrain.backbone.params.params import config_from_params
from quatrain.errors import QuatrainError
from quatrain.export import ExportOptions
from quatrain.export.kernels.assignment import LinearRow
from quatrain.export.kernels.check import check_program
from quatrain.export.lowering.compiler_shortcuts import compiler_shortcuts
from quatrain.export.xnnpack.activations import SigmoidGelu
from quatrain.export.xnnpack.delegate_keys import SCALES_PREFIX, keys_in
from quatrain.export.xnnpack.delegated_parts import DelegatedBlock, delegate_layers
from quatrain.export.xnnpack.layer_parts import (
    Heads,
    PartedBlock,
    part_layers,
)
from quatrain.export.xnnpack.small_linears import LinearRMSNorm, LinearRotary, WideRope
from quatrain.export.xnnpack.unused_patterns import without_unused_patterns
from quatrain.linear import Int8DynActInt4WeightLinear
from quatrain.linear.int8 import Int8DynActInt8WeightLinear
from quatrain.program import open_program

XNNPACK = ExportOptions(backend="xnnpack")


def config(**params):
    return config_from_params({**PARAMS, **params}, "params.json")


def test_the_norm_whose_mean_is_a_linear():
    norm = RMSNorm(48, 1e-5)
    norm.weight.uniform_(0.5, 1.5)
    x = torch.randn(1, 5, 48)
    torch.testing.assert_close(LinearRMSNorm(norm)(x), norm(x), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"use_hf_rope": True},
        {"use_hf_rope": True, "head_dim": 16, "partial_rotary_factor": 0.5},
    ],
)
def test_the_rotation_whose_other_channel_is_a_linears(params):
    """Equal bit for bit: each product has one factor that is not zero."""
    shape = config(**params)
    rope, dim = Rope(shape), shape.head_dim
    q, k = torch.randn(1, 7, 4, dim), torch.randn(1, 7, 2, dim)
    expected = rotary_for(shape)(q, k, *rope(3, 7))
    rotated = int(dim * shape.partial_rotary_factor)
    rotary, wide = LinearRotary(dim, rotated, shape.use_hf_rope), WideRope(rope, dim)
    for heads, theirs in zip((q, k), expected, strict=True):
        assert torch.equal(rotary(heads, *wide(3, 7)), theirs)


PARTS = {"PartedBlock", "PartedAttention", "PartedFeedForward"}
WITHOUT_BLOCK = PARTS - {"PartedBlock"}


@pytest.mark.parametrize(
    ("params", "parted"),
    [
        ({}, PARTS),
        ({"attention_qkv_bias": True, "use_qk_norm": True}, PARTS),
        ({"act_fn": "gelu_approx"}, PARTS),
        ({"act_fn": "relu2", "feed_forward_gate": False}, PARTS),
        ({"act_fn": "gelu"}, {"PartedAttention"}),
        ({"parallel_residual": True}, WITHOUT_BLOCK),
        ({"parallel_residual": True, "parallel_ffn_norm": True}, WITHOUT_BLOCK),
        ({"no_feed_forward_layers": (1,)}, PARTS),
        ({"residual_multiplier": 0.5}, WITHOUT_BLOCK),
        ({"laurel_rank": 4}, WITHOUT_BLOCK),
        ({"num_experts": 2}, {"PartedAttention"}),
        ({"use_attn_o_gate": True}, {"PartedFeedForward"}),
        ({"activation_sparsity": 0.5, "num_sparse_layers": 1, "n_layers": 1}, {"PartedAttention"}),
    ],
)
def test_what_has_a_part_is_parted(params, parted):
    backbone = Backbone(config(**params))
    names = [name for name, _ in backbone.named_parameters()]
    part_layers(backbone)
    found = {type(part).__name__ for part in backbone.modules()}
    assert {name for name in found if name.startswith("Parted")} == parted
    assert sorted(name for name, _ in backbone.named_parameters()) == sorted(names)


def test_gelu_of_a_sigmoid():
    x = torch.linspace(-20, 20, 4001)
    expected = torch.nn.functional.gelu(x, approximate="tanh")
    torch.testing.assert_close(SigmoidGelu()(x), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("module", "name", "kind", "settings"),
    [
        ("attention", "wq", torch.nn.Linear, {"bias": True}),
        ("attention", "wv", Int8DynActInt8WeightLinear, {}),
        ("feed_forward", "w3", Int8DynActInt4WeightLinear, {"bias": False, "groupsize": 32}),
    ],
)
def test_linears_of_one_input_that_differ_have_no_part(module, name, kind, settings):
    """In their bias or their format, in one layer of several: attentions have their angles in
    common, so that then none has one."""
    backbone = Backbone(config(n_layers=2))
    parent = backbone.layers[1].get_submodule(module)
    setattr(parent, name, kind(PARAMS["dim"], len(getattr(parent, name).weight), **settings))
    part_layers(backbone)
    first, second = backbone.layers
    assert not isinstance(second, PartedBlock)
    assert isinstance(first, PartedBlock) is (module == "feed_forward")


def test_layers_share_the_delegates_that_are_equal(shared):
    program = open_program(shared_tiny_xnnpack(shared))
    calls = [step.target for step in program.instructions if step.kind == "delegate"]
    assert len(calls) == 9 * 2 + 2  # of two layers, the last norm's and the output layer's
    assert len(program.delegates) == 4 * 2 + 5 + 1  # linears' are a layer's own, the rest is not
    keys = [keys_in(bytes(delegate.blob)) for delegate in program.delegates]
    scales = [sum(key.startswith(SCALES_PREFIX) for key in each) for each in keys]
    assert sorted(scales) == [0] * 5 + [1] * 9  # a layer's seven linears are four
    kernels = [str(step.target) for step in program.instructions if step.kind == "kernel"]
    assert not any(name in kernel for kernel in kernels for name in ("sigmoid", "cat", "rsqrt"))


def test_linears_of_one_input_are_joined_and_cut():
    """With norms of heads before the rotation, and without."""
    torch.manual_seed(0)
    for params in ({}, {"attention_qkv_bias": True, "use_qk_norm": True}):
        backbone, x = Backbone(config(n_layers=1, **params)), torch.randn(1, 5, PARAMS["dim"])
        part_layers(backbone)
        block, angles = backbone.layers[0], backbone.rope(3, 5)
        its = block.attention
        heads = Heads(its)
        normed = block.attention_norm(x)
        q, k, v = (one(normed).view(1, 5, -1, its.head_dim) for one in (its.wq, its.wk, its.wv))
        if its.q_norm_fn is not None:
            q, k = its.q_norm_fn(q), its.k_norm_fn(k)
        expected = its.rotary(q, *angles), its.rotary(k, *angles), v
        projected = joined(its.wq, its.wk, its.wv)(normed).view(1, 5, -1, its.head_dim)
        for found, theirs in zip(heads(projected, *angles), expected, strict=True):
            torch.testing.assert_close(found, theirs, rtol=0, atol=1e-6)


def test_a_norm_of_heads_without_a_weight_is_a_delegates():
    """Of Llama 4, whose layers are all alike here."""
    backbone = Backbone(config(n_layers=1, use_qk_norm=True, qk_norm_affine=False))
    part_layers(backbone)
    with compiler_shortcuts(), without_unused_patterns():
        delegate_layers(backbone)
    (layer,) = backbone.layers
    assert isinstance(layer, DelegatedBlock)


def joined(*linears):
    one = torch.nn.Linear(linears[0].in_features, sum(each.out_features for each in linears))
    one.weight.data = torch.cat([each.weight for each in linears])
    biases = [each.bias for each in linears if each.bias is not None]
    one.bias = torch.nn.Parameter(torch.cat(biases)) if biases else None
    return one


def test_a_linear_that_no_delegate_holds_is_named(shared):
    path, backbone = shared_tiny_xnnpack(shared), torch.nn.Module()
    missing = LinearRow("layers.0.attention.wq", "xnnpack.qd8_f32_qb4w", 4096, 64, 32)
    with pytest.raises(QuatrainError, match=r"without weights of \[131072\] bytes"):
        check_program(path, [missing], XNNPACK, backbone)
