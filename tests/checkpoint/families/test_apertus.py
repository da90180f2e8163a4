"""The numbers of Apertus' activation, which a folder has as tensors."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.models.families import ROWS
from tests.support.models.peers import random_model, saved

from quatrain.checkpoint.open import open_float_model
from quatrain.errors import InputError

PARTS = "model.layers.1.mlp.act_fn"
APPLIED = "layers.1.feed_forward.activate"


@pytest.fixture(scope="module")
def model():
    return random_model("Apertus", **ROWS["apertus"].fields)


def opened_with(model, folder, changes):
    """The model saved with those of `PARTS` changed, None being left out, and opened."""
    file = saved(model, folder) / "model.safetensors"
    tensors = load_file(file) | {f"{PARTS}.{part}": tensor for part, tensor in changes.items()}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, file, {"format": "pt"})
    return open_float_model(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha_n": None}, r"tensor model\.layers\.1\.mlp\.act_fn\.alpha_n is missing"),
        ({"alpha_p": torch.ones(2)}, r"alpha_p is \[1\.0, 1\.0\] of shape \[2\], expected one"),
        (
            {"beta": torch.tensor(float("nan"))},
            r"beta is \[nan\] of shape \[\], expected one finite",
        ),
        ({"eps": torch.tensor(-0.5)}, r"act_fn\.eps is -0\.5, expected -1e-05 to 0"),
    ],
)
def test_other_activations_are_refused(changes, message, model, tmp_path):
    with pytest.raises(InputError, match=message):
        opened_with(model, tmp_path, changes)


def test_missing_constants_have_the_defaults_of_transformers(model, tmp_path):
    found = opened_with(model, tmp_path, {"beta": None, "eps": None}).tensors
    stated = open_float_model(saved(model, tmp_path / "whole")).tensors
    assert {name for name in stated if APPLIED in name} == {
        f"{APPLIED}.{part}" for part in ("alpha_p", "alpha_n", "beta")
    }
    for name in stated:
        torch.testing.assert_close(found[name], stated[name], rtol=1e-6, atol=0)
