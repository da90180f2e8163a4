"""What files of models with state spaces say in ways of their own."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.formats.gguf_models import write_gguf_model
from tests.support.models.families import ROWS
from tests.support.models.family_errors import model_of
from tests.support.models.peers import TINY, change_config, saved

from quatrain.checkpoint.open import open_float_model
from quatrain.errors import InputError


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    names = ("granite 4 h", "falcon h1", "bamba", "nemotron h", "mamba 2")
    return {name: saved(model_of(ROWS[name]), tmp_path_factory.mktemp("m")) for name in names}


def changed(folder, tmp_path, **fields):
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    return change_config(tmp_path, **fields)


def test_layer_types_as_the_hub_calls_them(folders, tmp_path):
    """transformers 5 renames them."""
    folder = folders["granite 4 h"]
    kinds = {"layer_types": ["mamba", "attention", "mamba"], "time_step_limit": [0.0, 1e999]}
    opened = open_float_model(changed(folder, tmp_path, **kinds))
    assert opened.config == open_float_model(folder).config
    assert opened.config.layer_types == ("mamba", "full_attention", "mamba")


def test_layers_of_a_nemotron_h_as_the_hub_states_them(folders, tmp_path):
    """And what predicts further tokens is not used."""
    folder = folders["nemotron h"]
    stated = {"hybrid_override_pattern": "M-M*-*", "num_hidden_layers": 6}
    written = changed(folder, tmp_path, **stated, layers_block_type=None)
    (tmp_path / "model.safetensors").unlink()
    further = {"mtp.layers.0.norm.weight": torch.ones(64)}
    tensors = load_file(folder / "model.safetensors") | further
    save_file(tensors, tmp_path / "model.safetensors")
    opened = open_float_model(written)
    assert opened.config == open_float_model(folder).config
    assert opened.config.layer_types == ("mamba", "mamba", "full_attention", "full_attention")
    assert opened.config.no_feed_forward_layers == (1, 3)
    assert any("Not used" in note and "mtp.layers.0" in note for note in opened.notes)


def test_the_context_of_a_mamba_2(folders, tmp_path):
    """Its class has no field for it."""
    opened = open_float_model(folders["mamba 2"])
    assert opened.params["max_context_len"] == TINY["max_position_embeddings"]
    assert not opened.notes
    folder = changed(folders["mamba 2"], tmp_path)
    fields = json.loads((folder / "config.json").read_text())
    del fields["max_position_embeddings"]
    (folder / "config.json").write_text(json.dumps(fields))
    opened = open_float_model(folder)
    assert opened.params["max_context_len"] == 2048
    assert any("2048 tokens are assumed" in note for note in opened.notes)


REFUSED = [
    ("nemotron h", {"layers_block_type": ["mlp"]}, "with at most one feed-forward behind"),
    (
        "nemotron h",
        {"layers_block_type": None, "hybrid_override_pattern": "MEM*-*"},
        r"'hybrid_override_pattern' is 'MEM\*-\*'.*experts .* are not implemented",
    ),
    ("nemotron h", {"time_step_limit": [0.0, 0.1]}, "time steps with limits are not implemented"),
    ("nemotron h", {"mamba_dt_limit": [0.0, 0.1]}, "time steps with limits are not implemented"),
    ("nemotron h", {"mamba_hidden_act": "gelu"}, "'mamba_hidden_act' is 'gelu', expected 'silu'"),
    ("granite 4 h", {"layer_types": ["mamba"] * 2}, "expected 3 of 'attention' and 'mamba'"),
    ("granite 4 h", {"mamba_d_head": 3}, "'mamba_d_head' is 3, expected 128 channels divided by 8"),
    ("granite 4 h", {"mamba_d_state": 16}, r"in_proj\.weight has 392 rows, expected 328"),
    ("falcon h1", {"attn_layer_indices": [1]}, "'attn_layer_indices' is .*, expected None"),
    ("falcon h1", {"mamba_use_mlp": False}, "'mamba_use_mlp' is False, expected True"),
    ("falcon h1", {"mlp_multipliers": [1.0]}, "'mlp_multipliers' is .*, expected 2 positive"),
    ("falcon h1", {"time_step_limit": [0.0, 0.1]}, "time steps with limits are not implemented"),
    ("bamba", {"attn_layer_indices": [3]}, "'attn_layer_indices' is .*, expected layers from 0"),
]


@pytest.mark.parametrize("name, fields, message", REFUSED)
def test_what_is_not_implemented_or_does_not_fit(name, fields, message, folders, tmp_path):
    with pytest.raises(InputError, match=message):
        open_float_model(changed(folders[name], tmp_path, **fields))


def test_a_bamba_as_a_gguf_file(tmp_path):
    """llama.cpp's converter gives it the architecture of Granite 4, and no factor of logits."""
    conversion = ROWS["granite 4 h"].gguf
    figures = conversion.figures
    unscaled = replace(conversion, figures=lambda config: figures(config) | {"logit_scale": None})
    path = write_gguf_model(tmp_path / "m.gguf", model_of(ROWS["granite 4 h"]), unscaled)
    with pytest.raises(InputError, match="of a Bamba give the Hugging Face folder"):
        open_float_model(path)
