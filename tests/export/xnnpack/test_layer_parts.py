"""Parts of a layer that XNNPACK computes as linears give what the backbone's give."""

from collections import Counter

import pytest
import torch
from executorch.backends.xnnpack import xnnpack_preprocess
from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import XNNConvert
from tests.support.tiny_checkpoint import PARAMS
from tests.support.tiny_programs import shared_tiny, shared_tiny_xnnpack

from quatrain.backbone.build import build_backbone
from quatrain.backbone.model import Backbone
from quatrain.backbone.norm import RMSNorm
from quatrain.backbone.params import config_from_params
from quatrain.backbone.rope import Rope, rotary_for
from quatrain.checkpoint.open import open_checkpoint
from quatrain.errors import QuatrainError
from quatrain.export import ExportOptions
from quatrain.export.kernel_assignment import LinearRow
from quatrain.export.kernel_check import check_program
from quatrain.export.xnnpack import delegated_parts
from quatrain.export.xnnpack.layer_parts import (
    LinearRMSNorm,
    LinearRotary,
    PartedBlock,
    WideRope,
    part_layers,
)
from quatrain.export.xnnpack.operator_modules import to_cpu_operators
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


@pytest.mark.parametrize(
    ("params", "parted"),
    [
        ({}, True),
        ({"attention_qkv_bias": True, "use_qk_norm": True}, True),
        ({"act_fn": "gelu"}, False),
        ({"parallel_residual": True}, False),
        ({"residual_multiplier": 0.5}, False),
        ({"num_experts": 2}, False),
        ({"laurel_rank": 4}, False),
        ({"activation_sparsity": 0.5, "num_sparse_layers": 1}, False),
    ],
)
def test_layers_like_a_llamas_are_parted(params, parted):
    backbone = Backbone(config(**params))
    names = [name for name, _ in backbone.named_parameters()]
    part_layers(backbone)
    assert all(isinstance(layer, PartedBlock) is parted for layer in backbone.layers)
    assert sorted(name for name, _ in backbone.named_parameters()) == sorted(names)


def test_a_layer_is_three_delegates_and_its_attention(shared):
    program = open_program(shared_tiny_xnnpack(shared))
    assert len(program.delegates) == 3 * 2 + 1  # of two layers, and the output layer's
    kernels = [str(step.target) for step in program.instructions if step.kind == "kernel"]
    assert not any("sigmoid" in kernel or "cat" in kernel for kernel in kernels)


def test_what_several_linears_take_is_rounded_once(shared, monkeypatch):
    checkpoint = open_checkpoint(shared_tiny(shared).checkpoint)
    backbone = build_backbone(checkpoint.config, checkpoint.tensors, "8da4w")
    to_cpu_operators(backbone)
    graphs: list = []
    serialize = xnnpack_preprocess.serialize_xnnpack_binary

    def kept(graph, data):
        graphs.append(graph)
        return serialize(graph, data)

    monkeypatch.setattr(xnnpack_preprocess, "serialize_xnnpack_binary", kept)
    *_, (feed_forward, examples) = delegated_parts._parts_of(backbone.layers[0], 8)
    delegated_parts._lowered(feed_forward, examples)
    kinds = [Counter(type(node.xnode_union) for node in graph.xnodes) for graph in graphs]
    assert [each[XNNConvert] for each in kinds] == [2]  # what gate and up take, and down


def test_a_linear_that_no_delegate_holds_is_named(shared):
    path, backbone = shared_tiny_xnnpack(shared), torch.nn.Module()
    missing = LinearRow("layers.0.attention.wq", "xnnpack.qd8_f32_qb4w", 4096, 64, 32)
    with pytest.raises(QuatrainError, match=r"without weights of \[131072\] bytes"):
        check_program(path, [missing], XNNPACK, backbone)
