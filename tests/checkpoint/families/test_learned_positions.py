"""Families whose positions are learned: GPT-2 and those like it, as the hub has their files."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.models.families import ROWS
from tests.support.models.family_errors import model_of
from tests.support.models.peers import (
    TOLERANCE,
    backbone_of,
    change_config,
    exact_logits,
    prefill_then_decode,
    random_tokens,
    relative_error,
    saved,
)

from quatrain.backbone.build import build_backbone
from quatrain.checkpoint.open import open_float_model
from quatrain.errors import InputError


def error(folder, model, base=None):
    opened = open_float_model(folder, base)
    backbone = build_backbone(opened.config, opened.tensors)
    tokens = random_tokens(20)
    ours = prefill_then_decode(backbone, tokens, 7)
    return relative_error(ours, exact_logits(model, tokens)[:, 6:])


@pytest.mark.parametrize(("name", "prefix"), [("gpt2", "transformer."), ("opt", "model.")])
def test_files_of_a_model_without_its_output_layer(name, prefix, tmp_path):
    """GPT-2's own file has no prefix, some of OPT's have none but the decoder's; earlier versions
    of transformers saved masks too."""
    row = ROWS[name]
    model = model_of(row, tie_word_embeddings=True)
    folder = saved(model, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    tensors |= {"h.0.attn.bias": torch.ones(1, 1, 64, 64)} if name == "gpt2" else {}
    save_file(tensors, folder / "model.safetensors")
    assert error(folder, model) < TOLERANCE


def test_an_adapter_of_transposed_matrices(tmp_path):
    """As PEFT has it: of a square one, too, which fits either way."""
    model = model_of(ROWS["gpt2"])
    folder, adapter = saved(model, tmp_path / "model"), tmp_path / "adapter"
    modules = ["attn.c_attn", "attn.c_proj", "mlp.c_proj"]
    generator = torch.Generator().manual_seed(2)
    parts = {}
    for module in modules:
        weight = model.get_submodule(f"transformer.h.1.{module}").weight
        low = torch.randn(4, len(weight), generator=generator)
        up = torch.randn(weight.shape[1], 4, generator=generator)
        prefix = f"base_model.model.transformer.h.1.{module}"
        parts |= {f"{prefix}.lora_A.weight": low, f"{prefix}.lora_B.weight": up}
        weight += 0.5 * (up @ low).T
    adapter.mkdir()
    save_file(parts, adapter / "adapter_model.safetensors")
    said = {
        "peft_type": "LORA", "r": 4, "lora_alpha": 2, "fan_in_fan_out": True,
        "target_modules": modules,
    }  # fmt: skip
    (adapter / "adapter_config.json").write_text(json.dumps(said))
    assert error(adapter, model, folder) < TOLERANCE


def test_a_transposed_matrix_that_an_adapter_has_whole(tmp_path):
    """As it was trained (`modules_to_save`): also a square one, which fits either way."""
    model = model_of(ROWS["gpt2"])
    folder, adapter = saved(model, tmp_path / "model"), tmp_path / "adapter"
    modules = ["attn.c_attn", "attn.c_proj"]
    generator = torch.Generator().manual_seed(2)
    parts = {}
    for module in modules:
        weight = model.get_submodule(f"transformer.h.1.{module}").weight
        weight += 0.3 * torch.randn(weight.shape, generator=generator)
        parts[f"base_model.model.transformer.h.1.{module}.weight"] = weight.clone()
    adapter.mkdir()
    save_file(parts, adapter / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "r": 4, "lora_alpha": 2, "modules_to_save": modules}
    (adapter / "adapter_config.json").write_text(json.dumps(said))
    assert error(adapter, model, folder) < TOLERANCE


@pytest.mark.parametrize("positions", [62, 66])
def test_a_table_of_opt_that_does_not_have_two_rows_more(positions, tmp_path):
    """Of 66 positions its 66 rows would be taken for those without the first two."""
    folder = saved(model_of(ROWS["opt"]), tmp_path)
    change_config(folder, max_position_embeddings=positions)
    with pytest.raises(InputError, match=r"'max_position_embeddings' .* shape is \[66, 64\]"):
        open_float_model(folder)


def test_no_context_is_longer_than_the_table(tmp_path):
    folder = saved(model_of(ROWS["gpt2"]), tmp_path)
    assert open_float_model(folder).config.learned_positions == 64
    assert backbone_of(folder, max_seq_len=16).positions.weight.shape == (16, 64)
    change_config(folder, n_positions=63)
    with pytest.raises(InputError, match=r"positions\.weight|wpe\.weight"):
        open_float_model(folder)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"attention_types": [[["global", "local"], 1]]}, "types of 3 layers"),
        ({"attention_types": [[["global"], 10**9]]}, "pairs of a list"),
        ({"attention_layers": ["local"] * 3}, "what attention_types says"),
        ({"window_size": 0}, "'window_size' is 0"),
    ],
)
def test_attentions_of_gpt_neo_that_do_not_fit(tmp_path, fields, said):
    folder = change_config(saved(model_of(ROWS["gpt neo"]), tmp_path), **fields)
    with pytest.raises(InputError, match=said):
        open_float_model(folder)


@pytest.mark.parametrize(
    ("bases", "said"),
    [
        ([10000.0, 0, 0], "0 for layers without a window alone"),
        ([10000.0, 100.0, 200.0], "one number for layers with a window"),
        ([10000.0], "3 numbers"),
    ],
)
def test_bases_of_granite_swash_that_do_not_fit(tmp_path, bases, said):
    folder = saved(model_of(ROWS["granite swash, bases of both kinds"]), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    assert config["layer_types"] == ["full_attention", *["sliding_attention"] * 2]
    with pytest.raises(InputError, match=said):
        open_float_model(change_config(folder, layer_rope_theta=bases))
