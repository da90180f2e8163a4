"""Q4_0 is kept exactly, with positive scales where they can say the same."""

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.formats import gguf_files as ggufs
from tests.support.formats.q4_0_blocks import blocks_of, blocks_of_ggml, weight_of

from quatrain.quantize.methods.int4_blocks import layout_of_blocks


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), least=st.sampled_from((-8, -7)))
def test_exact_and_positive_where_it_can_be(seed, least):
    values, scales = blocks_of(seed, least)
    new_values, new_scales = layout_of_blocks(values, scales)
    assert torch.equal(weight_of(new_values, new_scales), weight_of(values, scales))
    assert int(new_values.min()) >= -8 and int(new_values.max()) <= 7
    no_positive = (scales < 0) & (values.view(8, 3, 32) == -8).any(-1)
    assert torch.equal(new_scales < 0, no_positive)
    assert bool((new_scales != 0).all())
    kept = scales > 0
    assert torch.equal(new_values.view(8, 3, 32)[kept], values.view(8, 3, 32)[kept])


def test_what_ggml_writes_is_kept():
    *blocks, source = blocks_of_ggml()
    values, scales = layout_of_blocks(*blocks)
    assert torch.equal(weight_of(values, scales), source)
    assert 0.4 < (scales < 0).float().mean() < 0.6  # half the extremes are positive


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_scale_that_is_not_finite(scale):
    values, scales = blocks_of(0)
    scales[1, 1] = scale
    with pytest.raises(ValueError, match="NaN or an infinite scale"):
        layout_of_blocks(values, scales)


def test_packing_helper_agrees_with_the_gguf_package():
    values, scales = blocks_of(1)
    packed = ggufs.q4_0_bytes(values.numpy(), scales.numpy())
    found = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q4_0)
    assert np.array_equal(found, weight_of(values, scales).numpy())
