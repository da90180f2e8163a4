"""What other tests' verdicts hang on sees what is wrong, and nothing else."""

import pytest
import torch
from tests.support.comparisons.rounding import assert_equal_but_for_rounding, nudged
from tests.support.models.tiny_checkpoint import PARAMS, write_checkpoint

from quatrain.arithmetic import XNNPACK_ARITHMETIC
from quatrain.verify.eager import load_eager

CALLS = ((0, 4), (4, 5), (5, 6))


def _text(generator: torch.Generator) -> torch.Tensor:
    return torch.randint(PARAMS["vocab_size"], (1, 6), generator=generator)


@pytest.fixture
def two(tmp_path):
    """The same 8da4w backbone twice."""
    checkpoint = write_checkpoint(tmp_path / "c", n_layers=2)
    return [load_eager(checkpoint, arithmetic=XNNPACK_ARITHMETIC) for _ in range(2)]


@pytest.mark.parametrize("size", [2.0**-23, 2.0**-21])
def test_rounding_otherwise_is_equal(two, size):
    """As another processor does: in some texts steps of int8 fall otherwise."""
    one, other = two
    with nudged(one, size, torch.Generator().manual_seed(1)):
        assert_equal_but_for_rounding(one, other, _text, CALLS)


@pytest.mark.parametrize("wrong", ["a scale", "a zero point", "the embedding"])
def test_what_is_wrong_is_not(two, wrong):
    one, other = two
    linear = one.layers[1].attention.wk
    if wrong == "a zero point":
        linear.register_forward_hook(lambda _, given, out: out + 1e-3 * given[0].abs().amax())
    elif wrong == "the embedding":
        one.tok_embeddings.register_forward_hook(lambda _, given, rows: rows * (1 + 2**-9))
    else:
        linear.register_forward_hook(lambda _, given, out: out * (1 + 2**-8))
    with pytest.raises(AssertionError):
        assert_equal_but_for_rounding(one, other, _text, CALLS)
