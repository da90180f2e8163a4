"""Mixtures with a shared expert and no gate: what their config.json may say in other ways, and what
is refused of it."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.models.families import ERNIE_MOE, HUNYUAN_MOE
from tests.support.models.peers import (
    TINY,
    TOLERANCE,
    backbone_of,
    change_config,
    random_model,
    random_tokens,
    relative_error,
    saved,
)

from quatrain.checkpoint.open import open_float_model
from quatrain.errors import InputError


@pytest.fixture(scope="module")
def hunyuan(tmp_path_factory):
    return saved(random_model("HunYuanMoEV1", **HUNYUAN_MOE), tmp_path_factory.mktemp("h"))


@pytest.fixture(scope="module")
def ernie(tmp_path_factory):
    return saved(random_model("Ernie4_5_Moe", **ERNIE_MOE), tmp_path_factory.mktemp("e"))


def opened(folder, **fields):
    """The model of `folder` with other `fields`, which do not stay."""
    path = folder / "config.json"
    before = path.read_text()
    try:
        return open_float_model(change_config(folder, **fields))
    finally:
        path.write_text(before)


def test_hunyuan_a13b_states_each_layers_figures(hunyuan):
    layers, width = TINY["num_hidden_layers"], HUNYUAN_MOE["intermediate_size"]
    lists = {"moe_topk": [2] * layers, "moe_intermediate_size": [width] * layers,
             "num_shared_expert": [1] * layers, "moe_layer_num_skipped": 0}  # fmt: skip
    assert opened(hunyuan, **lists).config == opened(hunyuan).config


REFUSED = [
    ("hunyuan", {"moe_topk": [1, 2, 2]}, r"'moe_topk' is \[1, 2, 2\], expected a whole number"),
    ("hunyuan", {"moe_intermediate_size": 32}, "'moe_intermediate_size' is 32, expected 64 in"),
    ("hunyuan", {"num_shared_expert": [1, 2, 1]}, r"'num_shared_expert' is \[1, 2, 1\], expected"),
    ("hunyuan", {"use_cla": True}, "'use_cla' is True, expected False in every layer"),
    ("hunyuan", {"num_experts": 1}, "'num_experts' is 1, expected a whole number from 2"),
    ("ernie", {"use_bias": True}, "'use_bias' is True, expected false"),
    ("ernie", {"moe_layer_end_index": 1}, "'moe_layer_end_index' is 1, expected -1 or 2, the last"),
    ("ernie", {"moe_norm_min": 0.1}, "'moe_norm_min' is 0.1, expected at most"),
    ("ernie", {"moe_layer_start_index": -1}, "'moe_layer_start_index' is -1, expected a whole"),
]


@pytest.mark.parametrize(("kind", "fields", "message"), REFUSED)
def test_what_is_not_implemented_is_refused(kind, fields, message, request):
    with pytest.raises(InputError, match=message):
        opened(request.getfixturevalue(kind), **fields)


def test_what_predicts_several_tokens_is_left_out_with_a_note(ernie, tmp_path):
    tensors = load_file(ernie / "model.safetensors")
    assert any(name.endswith("mlp.moe_statics.e_score_correction_bias") for name in tensors)
    extra = {f"model.mtp_{part}.0.weight": torch.ones(64) for part in ("emb_norm", "hidden_norm")}
    save_file(tensors | extra, tmp_path / "model.safetensors", {"format": "pt"})
    config = json.loads((ernie / "config.json").read_text()) | {"num_nextn_predict_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (note,) = [note for note in open_float_model(tmp_path).notes if "model.mtp_emb_norm" in note]
    assert "Not used" in note
    tokens, start = random_tokens(9), torch.tensor([0])
    # Not to the bit: where a tensor lies in its file decides how products of it are summed.
    ours, expected = backbone_of(tmp_path)(tokens, start), backbone_of(ernie)(tokens, start)
    assert relative_error(ours, expected) < TOLERANCE
