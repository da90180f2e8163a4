"""Weight errors and activation ranges by layer and role, against transformers and plain torch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.support.models.tiny_models import float_tensors, write_hugging_face
from tests.support.models.tiny_programs import write_word_tokenizer
from transformers import LlamaForCausalLM

from quatrain.errors import InputError
from quatrain.quantize.pipeline import quantize_model
from quatrain.release.measure.layers import measure_layers
from quatrain.release.report.heat_maps import heat_maps

TEXT = " ".join(f"w{(7 * i) % 96}" for i in range(60))
MODULES = {
    "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj",
    "o": "self_attn.o_proj", "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `model` of two layers and the `checkpoint` made of it."""
    folder = tmp_path_factory.mktemp("layers")
    model = write_hugging_face(folder / "model", architectures=["LlamaForCausalLM"])
    write_word_tokenizer(model)
    quantize_model(model, folder / "checkpoint", method="rtn", output_layer="int4")
    return folder


def measured(folder: Path, reference: str = "model") -> dict[str, Any]:
    words = folder / "model" / "tokenizer.json"
    return measure_layers(folder / "checkpoint", folder / reference, words, TEXT, 40)


def test_weight_errors_are_those_of_the_stored_integers(folder: Path) -> None:
    found = measured(folder)
    assert list(found["weight_error"]) == list(MODULES)
    stored, exact = load_file(folder / "checkpoint" / "model.safetensors"), float_tensors()
    for role, name in (("v", "attention.wv"), ("o", "attention.wo"), ("down", "feed_forward.w2")):
        for layer, error in enumerate(found["weight_error"][role]):
            assert error == pytest.approx(_error(stored, exact, f"layers.{layer}.{name}"), rel=1e-5)
    for table, name in (("embedding", "tok_embeddings"), ("output", "output")):
        assert found["tables"][table] == pytest.approx(_error(stored, exact, name), rel=1e-5)


def _error(stored: dict[str, torch.Tensor], exact: dict[str, torch.Tensor], name: str) -> float:
    want, scales = exact[f"{name}.weight"], stored[f"{name}.scales"]
    scales = scales.reshape(len(want), -1)
    got = stored[f"{name}.weight"] * scales.repeat_interleave(want.shape[1] // scales.shape[1], 1)
    return float((got - want).norm() / want.norm())


def test_activations_are_those_of_transformers(folder: Path) -> None:
    found, inputs = measured(folder), {}
    model = LlamaForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    for name, module in model.named_modules():
        module.register_forward_pre_hook(
            lambda _, given, name=name: inputs.update({name: given[0]}) if given else None
        )
    with torch.inference_mode():
        model(torch.tensor([[(7 * i) % 96 for i in range(40)]]))
    for layer in range(2):
        for role, name in MODULES.items():
            x = inputs[f"model.layers.{layer}.{name}"]
            assert found["lowest"][role][layer] == pytest.approx(float(x.min()), rel=1e-4)
            assert found["highest"][role][layer] == pytest.approx(float(x.max()), rel=1e-4)


def test_another_model_is_refused(folder: Path) -> None:
    other = float_tensors(hidden_dim=128)
    write_hugging_face(folder / "other", other, intermediate_size=128)
    with pytest.raises(
        InputError, match=r"--reference .*other: layers.0.feed_forward.w1.weight is "
    ):
        measured(folder, "other")


def test_a_map_says_its_numbers_and_where_the_largest_is() -> None:
    layers = {
        "tokens": 9, "weight_error": {"q": [0.081, None], "down": [0.05, 0.123]},
        "tables": {"embedding": 0.004, "output": None},
        "lowest": {"q": [-1.5, None]}, "highest": {"q": [0.25, 12345.6]},
    }  # fmt: skip
    weights, activations = heat_maps(layers)
    assert [[cell and cell.text for cell in row] for row in weights.rows] == [
        ["8.1", "5.0"],
        [None, "12.3"],
    ]
    heats = [cell.heat for row in weights.rows for cell in row if cell]
    assert heats == [19, 0, 45]
    assert weights.most == "Largest: 12.3, layer 1, down." and "embedding 0.4." in weights.said
    assert [[cell and cell.text for cell in row] for row in activations.rows] == [["1.5"], [None]]
    assert [one.id for one in heat_maps(layers | {"weight_error": None})] == ["activations"]
