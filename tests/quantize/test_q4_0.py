"""Q4_0 is kept exactly; for kernels that want positive scales, what has none is rounded again."""

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import tiny_models as tiny

from quatrain.export.xnnpack.positive_scales import make_scales_positive, positive_scales
from quatrain.linear.int4 import WeightOnlyInt4Linear
from quatrain.quantize.methods.q4_0 import layout_of_q4_0


def blocks_of(seed, least=-8, rows=8, groups=3):
    rng = np.random.default_rng(seed)
    values = rng.integers(least, 8, (rows, groups * 32)).astype(np.int8)
    scales = rng.normal(size=(rows, groups)).astype(np.float16)
    scales[0, 0] = 0
    return torch.from_numpy(values), torch.from_numpy(scales.astype(np.float32))


def blocks_of_ggml(rows=512, columns=256):
    """(integers, scales, weights as the gguf package has them) of normal weights."""
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)).numpy()
    packed = gguf.quants.quantize(weight, gguf.GGMLQuantizationType.Q4_0)
    source = torch.from_numpy(gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q4_0))
    blocks = packed.reshape(rows, -1, 18)
    scales = torch.from_numpy(blocks[..., :2].copy().view(np.float16)[..., 0].astype(np.float32))
    packed4 = blocks[..., 2:]
    values = np.concatenate((packed4 & 15, packed4 >> 4), -1).astype(np.int8) - 8
    return torch.from_numpy(values.reshape(rows, -1)), scales, source


def weight_of(values, scales):
    return (values.view(*scales.shape, 32) * scales[..., None]).view(values.shape)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), least=st.sampled_from((-8, -7)))
def test_exact_and_positive_where_it_can_be(seed, least):
    values, scales = blocks_of(seed, least)
    new_values, new_scales = layout_of_q4_0(values, scales)
    assert torch.equal(weight_of(new_values, new_scales), weight_of(values, scales))
    assert int(new_values.min()) >= -8 and int(new_values.max()) <= 7
    no_positive = (scales < 0) & (values.view(8, 3, 32) == -8).any(-1)
    assert torch.equal(new_scales < 0, no_positive)
    assert bool((new_scales != 0).all())
    kept = scales > 0
    assert torch.equal(new_values.view(8, 3, 32)[kept], values.view(8, 3, 32)[kept])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_only_negative_groups_are_rounded_again(seed):
    values, scales = layout_of_q4_0(*blocks_of(seed))
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
    values, scales = layout_of_q4_0(*blocks)
    assert torch.equal(weight_of(values, scales), source)
    assert 0.4 < (scales < 0).float().mean() < 0.6  # half the extremes are positive
    added = (weight_of(*positive_scales(values, scales)) - source).norm() / source.norm()
    assert added < 0.055


def test_a_backbone_is_counted_and_other_linears_stay():
    *blocks, source = blocks_of_ggml()
    values, scales = layout_of_q4_0(*blocks)
    signed, plain = (WeightOnlyInt4Linear(256, 512, bias=False, groupsize=32) for _ in range(2))
    signed.weight, signed.scales = values, scales
    plain.weight, plain.scales = values, scales.abs()
    counted = make_scales_positive(torch.nn.Sequential(signed, plain))
    assert (counted.groups, counted.rounded) == (2 * 512 * 8, int((scales < 0).sum()))
    error = (signed.dequantized_weight() - source).norm() / source.norm()
    assert counted.relative_rms_error == pytest.approx(float(error), rel=1e-5)
    assert plain.weight is values
    assert f"{counted.rounded} of {counted.groups} groups" in str(counted)


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_scale_that_is_not_finite(scale):
    values, scales = blocks_of(0)
    scales[1, 1] = scale
    with pytest.raises(ValueError, match="NaN or an infinite scale"):
        layout_of_q4_0(values, scales)


def test_packing_helper_agrees_with_the_gguf_package():
    values, scales = blocks_of(1)
    packed = tiny.q4_0_bytes(values.numpy(), scales.numpy())
    found = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q4_0)
    assert np.array_equal(found, weight_of(values, scales).numpy())
