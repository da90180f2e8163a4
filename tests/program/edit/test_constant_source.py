"""What a template's constant stands for, as the key it is stored under."""

import pytest

from quatrain.errors import QuatrainError
from quatrain.program.edit.constant_source import ConstantSource, Form, in_layer, layer_of

WEIGHT = ConstantSource(Form.PACKED, "layers.1.attention.wq.weight")


@pytest.mark.parametrize("form", Form)
def test_a_key_says_all(form):
    source = ConstantSource(form, "layers.1.attention.wq.weight")
    assert source.key == f"{form}:layers.1.attention.wq.weight"
    assert ConstantSource.from_key(source.key) == source


@pytest.mark.parametrize("key", ["", "packed", "packed:", "other:norm.weight", "a" * 64])
def test_what_is_not_a_source_is_refused(key):
    with pytest.raises(QuatrainError, match=r"a template's constant is called .* cache"):
        ConstantSource.from_key(key)


def test_a_module_says_it_of_its_own_tensors():
    own = ConstantSource(Form.PACKED, "weight")
    assert own.below("layers.1.attention.wq") == WEIGHT


@pytest.mark.parametrize(
    ("tensor", "layer"),
    [("layers.1.norm.weight", 1), ("layers.12.norm.weight", 12), ("norm.weight", None),
     ("rope.layers.1.cos", None), ("layers.x.weight", None)],
)  # fmt: skip
def test_the_layer_of_a_tensor(tensor, layer):
    assert layer_of(tensor) == layer
    assert in_layer(tensor, 30) == (tensor if layer is None else tensor.replace(str(layer), "30"))


def test_only_the_layer_that_is_meant_moves():
    assert WEIGHT.moved(1, 11).tensor == "layers.11.attention.wq.weight"
    assert WEIGHT.moved(2, 11) == WEIGHT
    norm = ConstantSource(Form.PLAIN, "norm.weight")
    assert norm.moved(1, 11) == norm
