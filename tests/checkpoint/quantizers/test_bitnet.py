"""Ternary models, packed by transformers."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.models.family_errors import checkpoint_error
from tests.support.models.peers import change_config, random_model, saved
from transformers.integrations.bitnet import pack_weights

from quatrain.checkpoint.open import open_checkpoint, open_float_model
from quatrain.errors import InputError

SETTINGS = {"quant_method": "bitnet", "modules_to_not_convert": None}
UP = "model.layers.0.mlp.up_proj"


def ternary(folder, auto: bool):
    """(a Llama's folder, its model on the values that it holds)"""
    model = random_model("Llama", tie_word_embeddings=False)
    tensors = load_file(saved(model, folder) / "model.safetensors")
    state = model.state_dict()
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        mean = tensors[name].abs().mean().view(1)
        numbers = (tensors[name] / mean).round().clamp(-1, 1)
        state[name].copy_(numbers * mean)
        tensors[name] = pack_weights(numbers)
        tensors[name.replace("weight", "weight_scale")] = mean if auto else 1 / mean
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    kind = {"linear_class": "autobitlinear", "quantization_mode": "offline"} if auto else {}
    return change_config(folder, quantization_config=SETTINGS | kind), model


@pytest.mark.parametrize("auto", [False, True])
def test_what_the_numbers_stand_for(tmp_path, auto):
    folder, model = ternary(tmp_path / "m", auto)
    assert checkpoint_error(folder, model) < 2e-6
    with pytest.raises(InputError, match="already quantized"):
        open_float_model(folder)


@pytest.mark.parametrize(
    ("settings", "change", "message"),
    [
        ({"linear_class": "x"}, {}, "linear_class is 'x', expected bitlinear or autobitlinear"),
        ({"use_rms_norm": True}, {}, "normalize their inputs .use_rms_norm"),
        ({}, {f"{UP}.weight": torch.ones(96, 64)}, r"up_proj\.weight is float32 \[96, 64\]"),
        ({}, {f"{UP}.weight_scale": torch.ones(2)}, r"weight_scale is float32 \[2\], expected one"),
        ({}, {f"{UP}.weight_scale": None}, r"up_proj\.weight_scale is missing"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, settings, change, message):
    folder, _ = ternary(tmp_path / "m", auto=False)
    tensors = load_file(folder / "model.safetensors") | change
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=message):
        open_checkpoint(change_config(folder, quantization_config=SETTINGS | settings))


def test_weights_that_become_ternary_as_the_model_runs(tmp_path):
    """Rounded to int4 they would be another model."""
    folder = saved(random_model("Llama"), tmp_path / "m")
    online = {"linear_class": "autobitlinear", "quantization_mode": "online"}
    change_config(folder, quantization_config=SETTINGS | online)
    for opened in (open_checkpoint, open_float_model):
        with pytest.raises(InputError, match=r"made ternary at run time.*packed"):
            opened(folder)
