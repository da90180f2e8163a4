"""Q4_0 blocks: exact wherever a positive scale can say the same."""

import gguf
import numpy as np
import pytest
import tiny_models as tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quatrain.quantize.q4_0 import positive_scales


def blocks_of(seed, least=-8, rows=8, groups=3):
    rng = np.random.default_rng(seed)
    values = rng.integers(least, 8, (rows, groups * 32)).astype(np.int8)
    scales = rng.normal(size=(rows, groups)).astype(np.float16)
    scales[0, 0] = 0
    return torch.from_numpy(values), torch.from_numpy(scales.astype(np.float32))


def weight_of(values, scales):
    return (values.view(*scales.shape, 32) * scales[..., None]).view(values.shape)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), least=st.sampled_from((-8, -7)))
def test_exact_or_counted(seed, least):
    values, scales = blocks_of(seed, least)
    before = weight_of(values, scales)
    new_values, new_scales, rounded = positive_scales(values, scales)
    assert bool((new_scales > 0).all())
    assert int(new_values.min()) >= -8 and int(new_values.max()) <= 7
    same = (weight_of(new_values, new_scales) == before).view(8, 3, 32).all(-1)
    must_round = (scales < 0) & (values.view(8, 3, 32) == -8).any(-1)
    assert rounded == int(must_round.sum())
    assert bool((same | must_round).all())
    kept = scales > 0
    assert torch.equal(new_scales[kept], scales[kept])
    assert torch.equal(new_values.view(8, 3, 32)[kept], values.view(8, 3, 32)[kept])
    if least == -7:
        assert rounded == 0 and bool(same.all())


def test_rounding_again_costs_little():
    """Against the best that int4 with a positive scale does on such a block: about one step of
    the one extreme weight."""
    weight = torch.randn(512, 256, generator=torch.Generator().manual_seed(0)).numpy()
    packed = gguf.quants.quantize(weight, gguf.GGMLQuantizationType.Q4_0)
    source = torch.from_numpy(gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q4_0))
    blocks = packed.reshape(512, -1, 18)
    scales = torch.from_numpy(blocks[..., :2].copy().view(np.float16)[..., 0].astype(np.float32))
    packed4 = blocks[..., 2:]
    values = np.concatenate((packed4 & 15, packed4 >> 4), -1).astype(np.int8) - 8
    new = positive_scales(torch.from_numpy(values.reshape(512, -1)), scales)
    assert 0.4 < new[2] / scales.numel() < 0.6  # half the extremes are positive
    added = (weight_of(*new[:2]) - source).norm() / source.norm()
    assert added < 0.055


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_scale_that_is_not_finite(scale):
    values, scales = blocks_of(0)
    scales[1, 1] = scale
    with pytest.raises(ValueError, match="NaN or an infinite scale"):
        positive_scales(values, scales)


def test_packing_helper_agrees_with_the_gguf_package():
    values, scales = blocks_of(1)
    packed = tiny.q4_0_bytes(values.numpy(), scales.numpy())
    found = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q4_0)
    assert np.array_equal(found, weight_of(values, scales).numpy())
