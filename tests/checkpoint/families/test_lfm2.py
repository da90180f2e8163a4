"""What LFM2's files say in ways of their own."""

from dataclasses import replace

import pytest
from tests.support.formats.gguf_models import write_gguf_model
from tests.support.models.families import LFM2, ROWS
from tests.support.models.family_errors import model_of
from tests.support.models.peers import change_config, random_model, saved

from quatrain.checkpoint.open import open_float_model
from quatrain.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return saved(random_model("Lfm2", **LFM2), tmp_path_factory.mktemp("lfm2"))


# As the hub has them: transformers' class takes `block_ff_dim` and `tie_embedding` in place of its
# own names, and makes layer_types of full_attn_idxs.
OF_THE_HUB = [
    {"block_ff_dim": 150, "intermediate_size": 1},
    {"tie_embedding": True, "tie_word_embeddings": False},
    {"full_attn_idxs": [1], "layer_types": None},
    {"intermediate_size": 128, "block_auto_adjust_ff_dim": False},
    {"intermediate_size": 192, "block_ffn_dim_multiplier": None},
]


@pytest.mark.parametrize("fields", OF_THE_HUB, ids=str)
def test_other_names_of_the_same_model(fields, folder, tmp_path):
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    opened = open_float_model(change_config(tmp_path, **fields))
    assert opened.config == open_float_model(folder).config
    assert opened.config.hidden_dim == 128
    assert opened.config.layer_types == ("conv", "full_attention", "conv")


REFUSED = [
    ({"conv_bias": True}, "'conv_bias' is True, expected false"),
    ({"conv_L_cache": 1}, "'conv_L_cache' is 1, expected a whole number from 2"),
    ({"layer_types": ["conv", "conv"]}, "expected 3 of 'full_attention' and 'conv'"),
    ({"layer_types": ["conv", "sliding_attention", "conv"]}, "expected 3 of"),
    ({"hidden_act": "gelu"}, "'hidden_act' is 'gelu', expected None"),
    ({"hidden_size": 32}, r"in_proj\.weight has 192 rows, expected 96"),
]


@pytest.mark.parametrize("fields, message", REFUSED)
def test_what_is_not_implemented_or_does_not_fit(fields, message, folder, tmp_path):
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(InputError, match=message):
        open_float_model(change_config(tmp_path, **fields))


@pytest.mark.parametrize(
    "counts, message",
    [
        ([0, 2, 4], "expected one number, or 0 for layers without attention"),
        ([0, 0, 0], "expected one number, or 0 for layers without attention"),
        ([0.0, 2.0, float("nan")], "expected one number, or 0 for layers without attention"),
        ([0, 2], "expected 3 numbers, one for each layer"),
    ],
)
def test_kv_heads_of_a_gguf_layer_by_layer(counts, message, tmp_path):
    conversion = ROWS["lfm2"].gguf
    figures = conversion.figures
    counted = replace(conversion, figures=lambda c: figures(c) | {"head_count_kv": counts})
    path = write_gguf_model(tmp_path / "m.gguf", model_of(ROWS["lfm2"]), counted)
    with pytest.raises(InputError, match=message):
        open_float_model(path)
