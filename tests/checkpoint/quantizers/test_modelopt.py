"""Int4 models of NVIDIA's ModelOpt (quant_algo W4A16_AWQ), packed as its exporter packs them."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.models.family_errors import checkpoint_error
from tests.support.models.peers import change_config, random_model, saved

from quatrain.checkpoint.open import open_checkpoint, open_float_model
from quatrain.errors import InputError
from quatrain.quantize.methods.round_to_nearest import quantize_groups
from quatrain.quantize.requantize import Requantization

SETTINGS = {"quant_method": "modelopt", "quant_algo": "W4A16_AWQ", "ignore": ["lm_head"]}
DOWN = "model.layers.0.mlp.down_proj"


def packed(values: torch.Tensor) -> torch.Tensor:
    """int8 [N, K] in -8 to 7 to uint8 [N / 2, K]: two rows in one, the first in the low bits."""
    first, second = values[0::2].int() & 15, values[1::2].int() & 15
    return (first | second << 4).to(torch.uint8)


@pytest.fixture
def made(tmp_path):
    """(a Llama's folder, its model on the values that it holds)"""
    model = random_model("Llama", tie_word_embeddings=False)
    tensors = load_file(saved(model, tmp_path / "m") / "model.safetensors")
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        values, scales = quantize_groups(tensors[name], 32)
        rounded = values.unflatten(1, (-1, 32)) * scales[..., None]
        model.state_dict()[name].copy_(rounded.flatten(1))
        tensors |= {name: packed(values), f"{name}_scale": scales}
    save_file(tensors, tmp_path / "m/model.safetensors")
    return change_config(tmp_path / "m", quantization_config=SETTINGS), model


def changed(folder, **parts):
    file = folder / "model.safetensors"
    tensors = load_file(file) | {f"{DOWN}.{part}": tensor for part, tensor in parts.items()}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, file)
    return folder


def test_what_the_numbers_stand_for(made):
    assert checkpoint_error(*made) < 2e-6
    with pytest.raises(InputError, match="already quantized"):
        open_float_model(made[0])


def test_a_linear_whose_inputs_are_multiplied_is_rounded_again(made):
    """As no scale of a group can say it."""
    folder, model = made
    factors = torch.linspace(0.9, 1.1, 96)
    changed(folder, pre_quant_scale=factors)
    model.state_dict()[f"{DOWN}.weight"].mul_(factors)
    with pytest.raises(InputError, match=rf"{DOWN} is in floating point, .*quatrain convert"):
        open_checkpoint(folder)
    again = Requantization()
    assert checkpoint_error(folder, model, again) < 0.05
    assert list(again.errors) == [DOWN]


@pytest.mark.parametrize(
    ("settings", "parts", "message"),
    [
        ({"quant_algo": "W8A16"}, {}, "quant_algo 'W8A16', expected 'W4A16_AWQ' alone"),
        ({"quantized_layers": {"a": {"quant_algo": "FP8"}, "b": {"quant_algo": "W4A16_AWQ"}}}, {},
         "quant_algo 'FP8', expected"),
        ({}, {"weight": torch.ones(32, 96, dtype=torch.int8)}, r"down_proj\.weight is int8"),
        ({}, {"weight_scale": torch.ones(63, 3)}, r"weight_scale is float32 \[63, 3\], expected"),
        ({}, {"weight_scale": None}, r"down_proj\.weight_scale is missing"),
        ({}, {"pre_quant_scale": torch.ones(95)}, r"pre_quant_scale is .*feature, \[96\]; downl"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(made, settings, parts, message):
    change_config(changed(made[0], **parts), quantization_config=SETTINGS | settings)
    with pytest.raises(InputError, match=message):
        open_checkpoint(made[0])
