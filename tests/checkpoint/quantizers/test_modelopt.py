"""Int4 and int8 models of NVIDIA's ModelOpt, packed as its exporter packs them."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.models.family_errors import checkpoint_error
from tests.support.models.peers import change_config, random_model, saved

from quatrain.checkpoint.open import is_quantized, open_checkpoint, open_float_model
from quatrain.checkpoint.source_files import source_files
from quatrain.errors import InputError
from quatrain.quantize.methods.round_to_nearest import quantize_channels, quantize_groups
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


def test_settings_in_modelopts_own_file(made):
    """As its first releases wrote them; scales of what a runtime rounds are not used."""
    folder, model = made
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    stated = {
        "quant_algo": "W4A8_AWQ",
        "kv_cache_quant_algo": "FP8",
        "exclude_modules": ["lm_head"],
    }
    file = folder / "hf_quant_config.json"
    file.write_text(json.dumps({"producer": {"name": "modelopt"}, "quantization": stated}))
    attention = "model.layers.0.self_attn"
    scales = {f"{attention}.k_proj.k_scale": torch.ones(1)}
    scales |= {
        f"{attention}.q_proj.{part}": torch.ones(1) for part in ("input_scale", "weight_scale_2")
    }
    scales |= {f"{DOWN}.{part}": torch.ones(()) for part in ("input_scale", "weight_scale_2")}
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | scales, folder / "model.safetensors")
    assert is_quantized(folder) and checkpoint_error(folder, model) < 2e-6
    notes = " ".join(open_checkpoint(folder).notes)
    assert "8-bit KV cache" in notes and "quantizes activations to float8 at run time" in notes
    assert file in source_files(folder, None)
    changed(folder, pre_quant_scale=torch.ones(96))
    assert checkpoint_error(folder, model, Requantization()) < 0.05


def test_a_file_of_modelopts_that_quantizes_the_kv_cache_alone(tmp_path):
    folder = saved(random_model("Llama"), tmp_path)
    stated = {"quant_algo": None, "kv_cache_quant_algo": "FP8"}
    (folder / "hf_quant_config.json").write_text(json.dumps({"quantization": stated}))
    assert not is_quantized(folder)
    open_float_model(folder)


@pytest.mark.parametrize("algorithm", ["W8A16", "W8A8_SQ_PER_CHANNEL"])
def test_int8_by_rows_is_rounded_again(made, algorithm):
    folder, model = made
    name = f"{DOWN}.weight"
    weight = torch.randn(64, 96, generator=torch.Generator().manual_seed(0))
    values, scales = quantize_channels(weight)
    changed(folder, weight=values, weight_scale=scales, pre_quant_scale=torch.full((96,), 0.5))
    layers = {DOWN: {"quant_algo": algorithm}, "others": {"quant_algo": "W4A16_AWQ"}}
    change_config(folder, quantization_config=SETTINGS | {"quantized_layers": layers})
    model.state_dict()[name].copy_(values * scales[:, None] * 0.5)
    opened = open_checkpoint(folder, round_again=Requantization())
    assert ("int8, with calibrated scales, at" in " ".join(opened.notes)) is (algorithm != "W8A16")
    found, expected = weight_of(opened, "layers.0.feed_forward.w2"), model.state_dict()[name]
    assert torch.equal(found, _rounded(expected))
    changed(folder, pre_quant_scale=None)
    with pytest.raises(InputError, match=f"{DOWN} is 8 bits"):
        open_checkpoint(folder)
    model.state_dict()[name].copy_(values * scales[:, None])
    opened = open_checkpoint(folder, round_again=Requantization())
    assert torch.equal(weight_of(opened, "layers.0.feed_forward.w2"), _rounded(expected))


def _rounded(weight: torch.Tensor) -> torch.Tensor:
    values, scales = quantize_groups(weight, 32)
    return (values.unflatten(1, (-1, 32)) * scales[..., None]).flatten(1)


def weight_of(checkpoint, name: str) -> torch.Tensor:
    values, scales = (checkpoint.tensors[f"{name}.{part}"] for part in ("weight", "scales"))
    return (values.unflatten(1, (scales.shape[1], -1)) * scales[..., None]).flatten(1)


@pytest.mark.parametrize(
    ("settings", "parts", "message"),
    [
        ({"quant_algo": "W4A8"}, {}, "quant_algo 'W4A8', expected W4A16_AWQ, W4A8_AWQ, .* alone"),
        ({"quantized_layers": {"a": {"quant_algo": "FP8"}, "b": {"quant_algo": "W4A16_AWQ"}}}, {},
         "quant_algo 'FP8', expected"),
        ({}, {"weight": torch.ones(32, 96, dtype=torch.int32)}, r"down_proj\.weight is int32"),
        ({}, {"weight": torch.ones(64, 96, dtype=torch.int8)}, r"scale is .* \[64, 3\], expected"),
        ({}, {"weight_scale": torch.ones(63, 3)}, r"weight_scale is float32 \[63, 3\], expected"),
        ({}, {"weight_scale": None}, r"down_proj\.weight_scale is missing"),
        ({}, {"pre_quant_scale": torch.ones(95)}, r"pre_quant_scale is .*feature, \[96\]; downl"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(made, settings, parts, message):
    change_config(changed(made[0], **parts), quantization_config=SETTINGS | settings)
    with pytest.raises(InputError, match=message):
        open_checkpoint(made[0])
