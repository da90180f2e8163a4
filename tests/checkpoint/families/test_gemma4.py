"""What of a folder of Gemma 4 is not used is said."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.models.families import GEMMA4
from tests.support.models.peers import change_config, random_model, saved

from quatrain.checkpoint.open import open_float_model
from quatrain.errors import InputError


@pytest.fixture
def folder(tmp_path):
    return saved(random_model("Gemma4", **GEMMA4, num_kv_shared_layers=3), tmp_path / "m")


def test_stored_keys_of_layers_that_read_others_are_named(folder):
    plain = open_float_model(folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    (last,) = {name.partition("layers.")[0] for name in tensors if "layers.5.mlp.down" in name}
    extra = {
        f"{last}layers.{layer}.self_attn.k_proj.weight": torch.zeros(16, 64) for layer in (4, 5)
    }
    save_file(tensors | extra, file, {"format": "pt"})
    opened = open_float_model(folder)
    said = "model.layers.4.self_attn.k_proj.weight, model.layers.5.self_attn.k_proj.weight"
    assert opened.notes == (*plain.notes, f"Not used, as in transformers: {said}.")
    assert set(opened.tensors) == set(plain.tensors)


def test_a_wrong_number_of_shared_layers_names_the_field(folder):
    change_config(folder, num_kv_shared_layers="3")
    with pytest.raises(InputError, match="'num_kv_shared_layers' is '3', expected a whole number"):
        open_float_model(folder)


@pytest.mark.parametrize("digits", [1, 2])
def test_a_layer_is_its_number_however_it_is_written(folder, digits):
    """transformers writes layer 5 of a model of 30 as "05"."""
    text = json.loads((folder / "config.json").read_text())["per_layer_config"]
    stated = {f"{int(layer):0{digits}}": fields for layer, fields in text.items()}
    expected = open_float_model(folder).config
    assert open_float_model(change_config(folder, per_layer_config=stated)).config == expected
    change_config(folder, per_layer_config=stated | {"0": {"head_dim": 16}})
    with pytest.raises(InputError, match=r"'per_layer_config' is .*expected one head_dim"):
        open_float_model(folder)
