"""Quantized folders of families whose tensors the hub lays out otherwise than Llama's."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.formats import quantized_folders as folders
from tests.support.formats import quantized_models
from tests.support.formats.mlx_folders import write_mlx_model
from tests.support.formats.quantized_models import write_quantized_model
from tests.support.models.families import ROWS
from tests.support.models.family_errors import checkpoint_error, mlx_error, model_of
from tests.support.models.peers import TOLERANCE, change_config
from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
from torchao.quantization import IntxWeightOnlyConfig, PerGroup, quantize_

from quatrain.checkpoint.open import open_checkpoint, open_float_model
from quatrain.errors import InputError
from quatrain.quantize.requantize import Requantization


@pytest.mark.parametrize("name", ["phi4 mini", "gemma3"])
def test_torchao(name, tmp_path):
    model = model_of(ROWS[name])
    model.save_pretrained(tmp_path)
    config = IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(folders.GROUP))
    linears = [part for part in model.model.modules() if isinstance(part, torch.nn.Linear)]
    quantize_(model, config, lambda part, _: part in linears)
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    save_file(*flatten_tensor_state_dict(state)[:1], tmp_path / "model.safetensors")
    for linear in linears:
        linear.weight = torch.nn.Parameter(linear.weight.dequantize(), requires_grad=False)
    assert checkpoint_error(tmp_path, model) < TOLERANCE


def test_matrices_of_one_row(tmp_path):
    """Of a delta rule with one head."""
    model = model_of(
        ROWS["qwen3.5"], linear_num_value_heads=1, linear_num_key_heads=1, linear_value_head_dim=32
    )
    folder = write_quantized_model(tmp_path, model, "compressed-tensors")
    assert checkpoint_error(folder, model) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "matrix"), [("qwen2 moe", "shared_expert_gate"), ("qwen3 next", "in_proj_ba")]
)
def test_a_matrix_that_is_computed_in_floating_point(name, matrix, tmp_path, monkeypatch):
    """Which is what its integers stand for."""
    monkeypatch.setattr(
        quantized_models, "LINEARS", (*quantized_models.LINEARS, f"{matrix}.weight")
    )
    model = model_of(ROWS[name])
    folder = write_quantized_model(tmp_path, model, "compressed-tensors")
    assert checkpoint_error(folder, model) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "quantized"),
    [
        ("lfm2", True), ("lfm2 moe", True), ("qwen3.5", True), ("qwen3 next", True),
        ("granite moe", True), ("llama4", True), ("gemma3n", True), ("qwen3 vl", True),
        ("granite 4 h", True), ("granite 4 h, experts", True),
        ("lfm2", False), ("qwen3.5 moe", False), ("granite 4 h", False),
    ],
)  # fmt: skip
def test_mlx(name, quantized, tmp_path):
    """What mlx-lm lays out otherwise than transformers: filters, norms, experts."""
    assert mlx_error(name, quantized, tmp_path) < TOLERANCE


def test_mlx_has_other_multipliers_of_a_falcon_h1(tmp_path):
    folder = write_mlx_model(tmp_path, model_of(ROWS["falcon h1"]), quantized=False)
    with pytest.raises(InputError, match="laid out as mlx-lm does it, whose versions make"):
        open_float_model(folder)


def test_an_expert_that_is_missing(tmp_path):
    folder = write_quantized_model(tmp_path, model_of(ROWS["llama4"]), "gptq")
    file = folder / "model.safetensors"
    tensors = {n: t for n, t in load_file(file).items() if ".experts.2.gate_proj" not in n}
    save_file(tensors, file)
    with pytest.raises(InputError, match=r"experts\.gate_proj\.\w+ are incomplete: 2 is missing"):
        open_checkpoint(folder)


@pytest.mark.parametrize("bits", [8, 16])
def test_an_expert_that_is_unlike_the_others_of_its_mixture(tmp_path, bits):
    """Of more bits than they, or as a filter of a quantizer leaves one that few tokens reach."""
    model = model_of(ROWS["qwen3 moe"])
    folder = write_quantized_model(tmp_path, model, "compressed-tensors")
    file, expert = folder / "model.safetensors", "model.layers.1.mlp.experts.2.up_proj"
    tensors = {n: t for n, t in load_file(file).items() if not n.startswith(expert)}
    weight = model.state_dict()["model.layers.1.mlp.experts.gate_up_proj"][2].chunk(2)[1]
    scale = weight.abs().amax(1, keepdim=True) / 127
    of_8_bits = {"weight": (weight / scale).round().to(torch.int8), "weight_scale": scale.half()}
    parts = of_8_bits if bits == 8 else {"weight": weight.half()}
    save_file(tensors | {f"{expert}.{part}": it.contiguous() for part, it in parts.items()}, file)
    settings = json.loads((folder / "config.json").read_text())["quantization_config"]
    settings["config_groups"]["group_1"] = {
        "targets": [expert], "weights": {"num_bits": 8, "type": "int", "strategy": "channel"},
    }  # fmt: skip
    change_config(folder, quantization_config=settings)
    with pytest.raises(InputError, match=rf"{re.escape(expert)} is .*; run `quatrain convert"):
        open_checkpoint(folder)
    checkpoint = open_checkpoint(folder, round_again=Requantization(asymmetric=False))
    checkpoint.check_values()
    name = "layers.1.feed_forward.experts.w3"
    values, scales = (checkpoint.tensors[f"{name}.{part}"][2] for part in ("weight", "scales"))
    found = (values.unflatten(1, (scales.shape[1], -1)) * scales[..., None].float()).flatten(1)
    assert (found - weight).norm() < 0.1 * weight.norm()


def test_experts_that_were_left_in_floating_point(tmp_path):
    model = model_of(ROWS["llama4"])
    folder = write_quantized_model(tmp_path, model, "gptq")
    file = folder / "model.safetensors"
    tensors = {n: t for n, t in load_file(file).items() if ".experts." not in n}
    tensors |= {n: t for n, t in model.state_dict().items() if ".experts." in n}
    save_file(tensors, file)
    with pytest.raises(InputError, match=r"experts\.gate_proj and 5 more is in floating point"):
        open_checkpoint(folder)
