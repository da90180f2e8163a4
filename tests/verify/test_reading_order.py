"""A constant in another's place is told, although the program holds both, and so is a value."""

import shutil
from pathlib import Path

import pytest
import torch
from tests.support.comparisons.verified import Tensors, wrong_beside
from tests.support.defects.edited_methods import edited_method, planned_over
from tests.support.models.tiny_checkpoint import PARAMS
from tests.support.models.tiny_programs import Tiny

from quatrain.backbone.model import Backbone
from quatrain.backbone.params.params import config_from_params
from quatrain.program import open_program
from quatrain.program.file.flatbuffer import Record
from quatrain.verify.checks.other_tensors import check_others
from quatrain.verify.checks.reading_order import check_order, check_read, names_read
from quatrain.verify.checks.stored_data import StoredData
from quatrain.verify.eager import load_eager

STATE_SPACE = {
    "layer_types": ["mamba"], "mamba_num_heads": 2, "mamba_head_dim": 8, "mamba_state_size": 8,
}  # fmt: skip


@pytest.mark.parametrize("backend", ["vulkan", "xnnpack"])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("layers.1.attention_norm", "layers.1.ffn_norm"),
        ("layers.0.attention.wo", "layers.1.attention.wo"),
    ],
)
def test_two_exchanged_constants_are_reported(
    backend: str, one: str, other: str, tiny: Tiny, tiny_xnnpack: Path, tmp_path: Path
) -> None:
    """By the one that is read where the earlier one should be."""

    def exchange(tensors: Tensors) -> None:
        for name in [name for name in tensors if name.startswith(one)]:
            there = name.replace(one, other)
            tensors[name], tensors[there] = tensors[there], tensors[name]

    source = tiny_xnnpack if backend == "xnnpack" else tiny.programs["weight-only"]
    program = Path(shutil.copy(source, tmp_path))
    (wrong,) = wrong_beside(program, tiny.checkpoint, exchange)
    assert wrong.removesuffix(".weight") == other


def test_matrices_and_vectors_have_an_order_each(tiny: Tiny) -> None:
    """What a program computes earlier than the model, as a norm's gate, is in its place."""
    backbone = load_eager(tiny.checkpoint)
    norms = [f"layers.{layer}.ffn_norm.weight" for layer in (0, 1)]
    linears = [f"layers.{layer}.attention.wq" for layer in (0, 1)]
    assert not check_order([{norms[1]}, {linears[0]}, {linears[1]}], backbone)
    for names in (norms, linears):
        (told,) = check_order([{names[1]}, {"layers.0.feed_forward.w2"}, {names[0]}], backbone)
        assert told.name == names[1]


@pytest.mark.parametrize(
    ("params", "one", "other"),
    [
        # A matrix may have the rows of wk and wv too, and those of two feed-forwards be as many.
        ({}, "layers.0.attention.wq", "layers.0.feed_forward.w1"),
        # The integers of both are as many, whichever has a bias besides.
        ({"attention_qkv_bias": True}, "layers.0.attention.wq", "layers.0.attention.wo"),
        (STATE_SPACE, "layers.0.mamba.conv1d.weight", "layers.0.mamba.conv1d.bias"),
    ],
)
def test_constants_that_are_stored_alike_have_an_order(params, one: str, other: str) -> None:
    """Whatever shape the backbone's tensors have."""
    config = config_from_params({**PARAMS, "n_layers": 1, **params}, "params.json")
    backbone = Backbone(config)
    assert not check_order([{one}, {other}], backbone)
    (told,) = check_order([{other}, {one}], backbone)
    assert told.name == other


def test_a_constant_read_instead_of_another_is_reported(
    tiny: Tiny, tiny_xnnpack: Path, tmp_path: Path
) -> None:
    def edit(plan: Record) -> None:
        tensors = [each.val for each in plan.values if getattr(each.val, "data_buffer_idx", 0)]
        norms = [one for one in tensors if len(one.sizes or ()) == 1 and one.sizes[0] > 1]
        norms[1].data_buffer_idx = norms[0].data_buffer_idx

    program = edited_method(tiny_xnnpack, edit)(tmp_path)
    (wrong,) = wrong_beside(program, tiny.checkpoint, lambda tensors: None)
    assert wrong.endswith("norm.weight")


def test_memory_that_is_still_needed_is_reported(
    tiny: Tiny, tiny_xnnpack: Path, tmp_path: Path
) -> None:
    """Whatever the texts show of it."""
    edit = planned_over("aten::slice_copy", "aten::flip")
    program = edited_method(tiny_xnnpack, edit)(tmp_path)
    assert set(wrong_beside(program, tiny.checkpoint, lambda tensors: None)) == {"memory"}


def test_what_other_things_may_be_equal_to_has_no_place(tiny: Tiny) -> None:
    """A factor of the model's may be that of attention too, which is read before it."""
    backbone = load_eager(tiny.checkpoint)
    norm = backbone.layers[0].attention_norm
    norm.weight = torch.nn.Parameter(torch.tensor([0.25]), requires_grad=False)
    asked: dict[str, bytes] = {}

    class Asked(StoredData):
        def has(self, data: bytes, name: str) -> bool:
            asked[name] = data
            return True

    program = open_program(tiny.programs["weight-only"])
    check_others(Asked(program, program.vulkan), backbone, strict=True, biases=False)
    places = {name for name in asked if name}
    assert places == {"norm.weight", "layers.0.ffn_norm.weight"} | {
        f"layers.1.{name}.weight" for name in ("attention_norm", "ffn_norm")
    }


def test_what_another_begins_with_is_not_taken_for_it(tiny_xnnpack: Path) -> None:
    """A norm of ones may be as the beginning of a wider one's."""
    program = open_program(tiny_xnnpack)
    stored = StoredData(program)
    place = program.root.constant_segment
    segment = program.segment(place.segment_index)
    at = place.offsets[1]
    for name, numbers in (("wide", 64), ("narrow", 16)):
        assert stored.has(bytes(segment[at : at + 4 * numbers]), name)
    read = list(names_read(program, None, stored, {}))
    assert {"wide", "narrow"} in read
    assert check_read(read, stored) == []
