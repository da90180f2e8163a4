"""For kernels that want positive scales, what has a negative one is rounded again, and counted."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.formats.q4_0_blocks import blocks_of, blocks_of_ggml, weight_of

from quatrain.export.xnnpack.positive_scales import make_scales_positive, positive_scales
from quatrain.linear.int4 import WeightOnlyInt4Linear
from quatrain.quantize.methods.int4_blocks import layout_of_blocks


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_only_negative_groups_are_rounded_again(seed):
    values, scales = layout_of_blocks(*blocks_of(seed))
    new_values, new_scales = positive_scales(values, scales)
    assert bool((new_scales > 0).all())
    assert int(new_values.min()) >= -8 and int(new_values.max()) <= 7
    kept = scales > 0
    assert torch.equal(new_scales[kept], scales[kept])
    assert torch.equal(new_values.view(8, 3, 32)[kept], values.view(8, 3, 32)[kept])


def test_rounding_again_costs_little():
    """Against the best that int4 with a positive scale does on such a block: about one step of
    the one extreme weight."""
    *blocks, source = blocks_of_ggml()
    values, scales = layout_of_blocks(*blocks)
    added = (weight_of(*positive_scales(values, scales)) - source).norm() / source.norm()
    assert added < 0.055


def test_a_backbone_is_counted_and_other_linears_stay():
    *blocks, source = blocks_of_ggml()
    values, scales = layout_of_blocks(*blocks)
    signed, plain = (WeightOnlyInt4Linear(256, 512, bias=False, groupsize=32) for _ in range(2))
    signed.weight, signed.scales = values, scales
    plain.weight, plain.scales = values, scales.abs()
    counted = make_scales_positive(torch.nn.Sequential(signed, plain))
    assert (counted.groups, counted.rounded) == (2 * 512 * 8, int((scales < 0).sum()))
    error = (signed.dequantized_weight() - source).norm() / source.norm()
    assert counted.relative_rms_error == pytest.approx(float(error), rel=1e-5)
    assert plain.weight is values
    assert f"{counted.rounded} of {counted.groups} groups" in str(counted)
