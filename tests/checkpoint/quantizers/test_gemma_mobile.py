"""Models in Google's format for phones (quant_method "gemma"), as transformers reads them."""

import re

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tests.support.models.family_errors import checkpoint_error
from tests.support.models.peers import change_config, random_model, saved

from quatrain.checkpoint.open import open_checkpoint
from quatrain.errors import InputError
from quatrain.quantize.requantize import Requantization

BITS = {
    r"mlp\.": {"num_bits": 8},  # of layers\.\d+\.mlp, which is found further to the left
    r"^lm_head$": {"num_bits": 2},
    r"embed_tokens$": {"num_bits": 8},
    r"layers\.0\.mlp\.": {},
    r"layers\.\d+\.mlp\.": {"num_bits": 2},
}
SETTINGS = {
    "quant_method": "gemma", "num_bits": 4, "quantize_embeddings": True,
    "module_quant_configs": BITS, "modules_to_not_convert": [],
}  # fmt: skip
Q = "model.layers.0.self_attn.q_proj"


def packed(weight: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[N, K] in numbers of `bits`, and a scale a row."""
    top = 2 ** (bits - 1)
    scale = weight.abs().amax(1, keepdim=True) / max(1, top - 1)
    numbers = (weight / scale).round().clamp(-top, top - 1).to(torch.int8)
    if bits == 8:
        return numbers, scale
    places = (numbers + top).to(torch.uint8).unflatten(1, (-1, 8 // bits))
    return (places << torch.arange(0, 8, bits)).sum(-1).to(torch.uint8), scale


@pytest.fixture
def folder(tmp_path):
    """A Llama so: nothing in it knows Gemma."""
    folder = saved(random_model("Llama", tie_word_embeddings=False), tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name, tensor in tensors.items() if tensor.ndim == 2]:
        module = name.removesuffix(".weight")
        found = {m.start(): own for p, own in reversed(BITS.items()) if (m := re.search(p, module))}
        own = found[min(found)] if found else {}
        numbers, scale = packed(tensors.pop(name), own.get("num_bits", 4))
        if "embed" in name:
            tensors |= {f"{module}.embedding_quantized": numbers}
            tensors |= {f"{module}.embedding_scale": scale}
        else:
            tensors |= {name: numbers, f"{module}.weight_scale": scale}
            for side in ("input", "output"):  # not calibrated
                tensors[f"{module}.{side}_activation_scale"] = torch.zeros(())
    tensors["model.layers.0.self_attn.k_cache_scale"] = torch.ones(())
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return change_config(folder, quantization_config=SETTINGS)


def test_what_transformers_computes(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert type(model.lm_head).__name__ == "QuantizedLinear"
    assert checkpoint_error(folder, model.eval()) < 2e-6
    cache, activations = open_checkpoint(folder).notes
    assert "k_cache_scale and the like), which are not used" in cache
    assert "input_activation_scale and the like), which are not used" in activations


@pytest.mark.parametrize(
    ("settings", "without", "message"),
    [
        ({"num_bits": 8}, "", r"down_proj\.weight is uint8 .*expected .* int8, .* 8 bits"),
        ({"num_bits": 3}, "", "num_bits 3 for .*expected 2, 4 or 8"),
        ({"module_quant_configs": {"proj(": {}}}, "", r"'proj\(', which is not a valid pattern"),
        ({"module_quant_configs": []}, "", r"module_quant_configs is \[\]"),
        ({}, f"{Q}.weight_scale", r"q_proj has only weight.*download"),
    ],
)
def test_what_does_not_fit_is_named(folder, settings, without, message):
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(without, None)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    change_config(folder, quantization_config=SETTINGS | settings)
    with pytest.raises(InputError, match=message):
        open_checkpoint(folder, round_again=Requantization(asymmetric=False))
