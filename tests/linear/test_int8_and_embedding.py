"""The int8 output linear and the quantized embedding against ExecuTorch's own."""

import pytest
import torch
from executorch.examples.models.llama.source_transformation.quantize import (
    Int8DynActInt8WeightLinear as PeerInt8DynActInt8WeightLinear,
)
from executorch.examples.models.llama.source_transformation.quantize import (
    QuantizedGroupEmbedding as PeerQuantizedGroupEmbedding,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from quatrain.linear import Int8DynActInt8WeightLinear, QuantizedGroupEmbedding


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 33), st.integers(2, 70), st.integers(1, 5), st.integers(0, 2**31))
def test_output_linear_equals_the_peer(rows, columns, tokens, seed):
    generator = torch.Generator().manual_seed(seed)
    state = {
        "weight": torch.randint(-128, 128, (rows, columns), generator=generator, dtype=torch.int8),
        "scales": torch.rand(rows, generator=generator) + 0.01,
        "zeros": torch.zeros(rows),
    }
    ours = Int8DynActInt8WeightLinear(columns, rows)
    theirs = PeerInt8DynActInt8WeightLinear(columns, rows, bias=False)
    ours.load_state_dict(state)
    theirs.load_state_dict(state)
    x = torch.randn(1, tokens, columns, generator=generator) * 5 - 1
    assert torch.equal(ours(x), theirs(x))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 30),
    st.sampled_from([(64, None), (64, 32), (128, 64), (256, 256)]),
    st.integers(0, 2**31),
)
def test_embedding_equals_the_peer(vocab, shape, seed):
    dim, group = shape
    generator = torch.Generator().manual_seed(seed)
    ours = QuantizedGroupEmbedding(vocab, dim, group_size=group)
    theirs = PeerQuantizedGroupEmbedding(
        None, vocab, dim, group, dtype=torch.float32, scales_precision=torch.float32
    )
    state = {
        "weight": torch.randint(-128, 128, (vocab, dim), generator=generator, dtype=torch.int8),
        "scales": torch.rand(ours.scales.shape, generator=generator),
    }
    ours.load_state_dict(state)
    theirs.load_state_dict(state)
    tokens = torch.randint(0, vocab, (1, 7), generator=generator)
    assert torch.equal(ours(tokens), theirs(tokens))
    assert torch.equal(ours.dequantized_weight()[tokens], ours(tokens))


def test_embedding_refuses_what_it_cannot_hold():
    with pytest.raises(ValueError, match="48 is not a multiple of group_size 32"):
        QuantizedGroupEmbedding(4, 48, group_size=32)
    with pytest.raises(ValueError, match="bit_width is 2"):
        QuantizedGroupEmbedding(4, 64, bit_width=2)
