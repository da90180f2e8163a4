"""Numbers in tensors survive what lowering does to constants, however many there are."""

import pytest
import torch
from tests.support.models.tiny_checkpoint import write_checkpoint

from quatrain.backbone.build import build_backbone
from quatrain.checkpoint.open import open_checkpoint
from quatrain.export.vulkan.program_from_template import number_tensors, numbered, read_number
from quatrain.program.edit.replicated_layers import IrregularGraph

NUMBERS = [*range(1, 5000), 16129, 16130, 65504, 65536, 1_000_000, 2_048_383]


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.int32, torch.int8, torch.uint8, torch.int64]
)
def test_a_number_comes_back_from_every_dtype(dtype):
    like = torch.empty(2, 3, dtype=dtype)
    assert all(read_number(numbered(like, number).numpy()) == number for number in NUMBERS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_number_comes_back_through_half_precision(dtype):
    like = torch.empty(5)
    for number in NUMBERS:
        stored = numbered(like, number).to(dtype).to(torch.float32)
        assert read_number(stored.numpy()) == number


@pytest.mark.parametrize(("elements", "most"), [(1, 127), (2, 127**2), (3, 127**3), (9, 127**3)])
def test_a_number_that_a_tensor_has_no_room_for(elements, most):
    like = torch.empty(elements)
    assert read_number(numbered(like, most).numpy()) == most
    assert numbered(like, most + 1) is None


def test_the_tensor_is_zero_but_for_its_number():
    assert numbered(torch.ones(2, 4), 1).tolist() == [[1, 1, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("reordered", [lambda x: x.T, lambda x: x.flip(0), torch.zeros_like])
def test_reordered_elements_are_not_a_number(reordered):
    assert read_number(reordered(numbered(torch.empty(4, 4), 300)).contiguous().numpy()) is None


def test_a_tensor_too_small_for_its_number_is_named(tmp_path):
    opened = open_checkpoint(write_checkpoint(tmp_path, n_layers=3))
    backbone = build_backbone(opened.config, opened.tensors)
    for index in range(128):
        backbone.register_buffer(f"small{index}", torch.zeros(1))
    with pytest.raises(IrregularGraph, match="small127 has too few elements for the number 128"):
        number_tensors(backbone)
