"""AutoRound's MX_INT4, packed here from the format; by hand AutoRound 0.16.1 packed the same."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.models.family_errors import checkpoint_error
from tests.support.models.peers import change_config, random_model, saved

from quatrain.checkpoint.open import is_quantized, open_checkpoint
from quatrain.errors import InputError

SETTINGS = {
    "quant_method": "auto-round", "data_type": "mx_int", "bits": 4, "group_size": 32, "sym": True,
    "act_bits": 4, "act_data_type": "mx_int", "packing_format": "auto_round:mx_int",
}  # fmt: skip
DOWN = "model.layers.0.mlp.down_proj"


def packed(weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """(the tensors of `weight` [N, K], what they stand for)"""
    groups = weight.unflatten(1, (-1, 32))
    exponents = groups.abs().amax(-1).log2().floor()
    quarters = (groups / exponents.exp2()[..., None] * 4).round().clamp(-7, 7)
    read = (quarters / 4 * exponents.exp2()[..., None]).flatten(1)
    codes = (quarters.abs() + 8 * (quarters < 0)).flatten(1).to(torch.uint8)
    parts = {
        "weight_packed": codes[:, 0::2] | codes[:, 1::2] << 4,
        "weight_scale": (exponents + 127).to(torch.uint8),
    }
    return parts, read


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(a Llama's folder, its model on the values that it holds)"""
    folder = tmp_path_factory.mktemp("made")
    model = random_model("Llama", tie_word_embeddings=False)
    tensors = load_file(saved(model, folder) / "model.safetensors")
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        parts, read = packed(tensors.pop(name))
        model.state_dict()[name].copy_(read)
        tensors |= {f"{name.removesuffix('.weight')}.{part}": t for part, t in parts.items()}
    save_file(tensors, folder / "model.safetensors")
    return change_config(folder, quantization_config=SETTINGS), model


def test_what_the_numbers_stand_for(made):
    folder, model = made
    assert is_quantized(folder) and checkpoint_error(folder, model) < 2e-6
    assert "quantizes activations to mx_int4 at run time" in open_checkpoint(folder).notes[0]


@pytest.mark.parametrize(
    ("settings", "parts", "message"),
    [
        ({"bits": 8}, {}, "has bits 8 and group_size 32 of data_type 'mx_int', expected 4 and 32"),
        ({"rotation_config": {"hadamard": True}}, {}, "weights are rotated"),
        ({}, {"weight_packed": torch.zeros(64, 48)}, r"weight_packed is float32 \[64, 48\], exp"),
        ({}, {"weight_packed": torch.zeros(64, 24, dtype=torch.uint8)}, r"scale is .* \[64, 1\]"),
        ({}, {"weight_scale": torch.ones(64, 3)}, "weight_scale is float32 .* matrix of exponents"),
        ({}, {"weight_scale": None}, r"down_proj\.weight_scale is missing"),
    ],
)
def test_what_does_not_fit_is_named(made, tmp_path, settings, parts, message):
    tensors = load_file(made[0] / "model.safetensors")
    tensors |= {f"{DOWN}.{part}": tensor for part, tensor in parts.items()}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((made[0] / "config.json").read_bytes())
    change_config(tmp_path, quantization_config=SETTINGS | settings)
    with pytest.raises(InputError, match=message):
        open_checkpoint(tmp_path)
