"""Parts of gated delta rules and state spaces that XNNPACK computes give what the backbone's give.

Whole programs are held against eager in `test_delta_rule_programs` and its like.
"""

import pytest
import torch
from tests.support.models.tiny_checkpoint import PARAMS

from quatrain.backbone.layers.mamba import GroupNorm
from quatrain.backbone.layers.norm import RMSNorm
from quatrain.backbone.model import Backbone
from quatrain.backbone.params.params import config_from_params
from quatrain.export.lowering.compiler_shortcuts import compiler_shortcuts
from quatrain.export.xnnpack.delegated_parts import delegate_layers
from quatrain.export.xnnpack.delegated_recurrences import (
    DelegatedDeltaNet,
    DelegatedMamba,
    DelegatedShortConv,
)
from quatrain.export.xnnpack.operator_modules import to_cpu_operators
from quatrain.export.xnnpack.small_linears import LinearGroupNorm, LinearRMSNorm
from quatrain.export.xnnpack.unused_patterns import without_unused_patterns


def test_a_norm_to_one_length_has_a_factor() -> None:
    norm, x = RMSNorm(48, 1e-5, affine=False), torch.randn(1, 5, 3, 48)
    norm.weight.mul_(0.25)
    linear = LinearRMSNorm(norm)
    assert linear.weight is None and linear.factor is not None
    torch.testing.assert_close(linear(x), norm(x), rtol=1e-6, atol=1e-7)


def test_the_norm_of_groups_whose_means_are_linears() -> None:
    norm, x = GroupNorm(48, 3, 1e-5), torch.randn(1, 5, 48)
    norm.weight.uniform_(0.5, 1.5)
    torch.testing.assert_close(LinearGroupNorm(norm)(x), norm(x), rtol=1e-6, atol=1e-7)


DELTA = {
    "linear_num_key_heads": 1, "linear_num_value_heads": 2, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "linear_conv_kernel_dim": 4,
}  # fmt: skip
SPACE = {
    "mamba_num_heads": 2, "mamba_head_dim": 8, "mamba_n_groups": 1, "mamba_state_size": 8,
    "mamba_conv_kernel": 4,
}  # fmt: skip


@pytest.mark.parametrize(
    ("params", "kind"),
    [
        (DELTA | {"layer_types": ["linear_attention"]}, DelegatedDeltaNet),
        (SPACE | {"layer_types": ["mamba"]}, DelegatedMamba),
        (SPACE | {"layer_types": ["hybrid"]}, DelegatedMamba),
        ({"layer_types": ["conv"], "conv_L_cache": 3}, DelegatedShortConv),
    ],
)
def test_what_lies_between_linears_is_delegates(params, kind) -> None:
    config = config_from_params({**PARAMS, "n_layers": 1, **params}, "params.json")
    backbone = Backbone(config)
    to_cpu_operators(backbone)
    with compiler_shortcuts(), without_unused_patterns():
        delegate_layers(backbone)
    assert any(type(part) is kind for part in backbone.layers[0].children())
