"""InternLM2's files as they were released: queries, keys and values in one matrix, also quantized,
and beside what sees."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.formats import quantized_folders as folders
from tests.support.models.family_errors import checkpoint_error
from tests.support.models.internlm2 import as_on_the_hub
from tests.support.models.peers import (
    TOLERANCE,
    backbone_of,
    change_config,
    exact_logits,
    prefill_then_decode,
    random_model,
    random_tokens,
    relative_error,
    saved,
)

from quatrain.checkpoint.open import open_float_model
from quatrain.errors import InputError
from quatrain.quantize.methods.round_to_nearest import quantize_groups


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_quantized(method, tmp_path):
    model = random_model("InternLM2", vocab_size=96)
    rounded: dict[str, dict[str, torch.Tensor]] = {"values": {}, "scales": {}}
    for name, weight in model.state_dict().items():
        if name.endswith("_proj.weight"):
            values, scales = quantize_groups(weight, folders.GROUP)
            weight.copy_((values.unflatten(1, (-1, folders.GROUP)) * scales[..., None]).flatten(1))
            rounded["values"][name], rounded["scales"][name] = values, scales
    values, scales = (as_on_the_hub(each, model.config) for each in rounded.values())
    file = saved(model, tmp_path) / "model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(file).items() if name not in values}
    for name in values:
        for part, packed in folders.PACK[method](values[name], scales[name]).items():
            tensors[name.replace("weight", part)] = packed.contiguous()
    save_file(tensors, file)
    change_config(tmp_path, quantization_config=folders.SETTINGS[method])
    assert any(name.endswith("wqkv.qweight") for name in tensors)
    assert checkpoint_error(tmp_path, model) < TOLERANCE


def test_in_internvl(tmp_path):
    model = random_model("InternLM2", vocab_size=96)
    file = saved(model, tmp_path) / "model.safetensors"
    whole = {f"language_model.{name}": tensor for name, tensor in load_file(file).items()}
    save_file(whole | {"vision_model.x.weight": torch.ones(2)}, file)
    text = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "internvl_chat", "llm_config": text})
    )
    tokens = random_tokens(14)
    ours = prefill_then_decode(backbone_of(tmp_path), tokens, 9)
    assert relative_error(ours, exact_logits(model, tokens)[:, 8:]) < TOLERANCE


def test_a_matrix_of_another_number_of_rows_is_refused(tmp_path):
    saved(random_model("InternLM2", vocab_size=96), tmp_path)
    change_config(tmp_path, num_key_value_heads=4)
    with pytest.raises(InputError, match=r"wqkv.*expected 48 rows for each of 4 heads"):
        open_float_model(tmp_path)
