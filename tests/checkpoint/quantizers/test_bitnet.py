"""Ternary models, packed by transformers."""

import copy
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.models.family_errors import checkpoint_error
from tests.support.models.peers import (
    change_config,
    random_model,
    random_tokens,
    relative_error,
    saved,
)
from transformers import BitNetQuantConfig
from transformers.integrations.bitnet import (
    WeightQuant,
    pack_weights,
    replace_with_bitnet_linear,
)

from quatrain.backbone.build import build_backbone
from quatrain.checkpoint.open import open_checkpoint, open_float_model
from quatrain.errors import InputError
from quatrain.int4 import Scheme

SETTINGS = {"quant_method": "bitnet", "modules_to_not_convert": None}
ONLINE = {"linear_class": "autobitlinear", "quantization_mode": "online"}
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


@pytest.fixture(scope="module")
def at_run_time(tmp_path_factory):
    """(the folder of a BitNet in floating point, its model)"""
    folder = tmp_path_factory.mktemp("bitnet") / "m"
    model = random_model("BitNet")
    change_config(saved(model, folder), quantization_config=SETTINGS | ONLINE)
    return folder, model


def test_weights_that_become_ternary_as_the_model_runs(at_run_time):
    """They are int4 as transformers rounds them; in floating point they are another model."""
    folder, model = copy.deepcopy(at_run_time)
    with torch.compiler.set_stance("force_eager"):
        for name, parameter in model.named_parameters():
            if name.endswith("_proj.weight"):
                parameter.copy_(WeightQuant.apply(parameter))
    assert checkpoint_error(folder, model) < 2e-6
    with pytest.raises(InputError, match=r"already quantized.*convert"):
        open_float_model(folder)


@pytest.mark.parametrize("scheme", [Scheme.DYNAMIC_INT8, Scheme.WEIGHT_ONLY])
def test_both_schemes_are_near_the_activations_of_transformers(at_run_time, scheme):
    """They round them otherwise, as a note says."""
    folder, model = copy.deepcopy(at_run_time)
    replace_with_bitnet_linear(model, ["lm_head"], BitNetQuantConfig(**ONLINE))
    for name, parameter in random_model("BitNet").named_parameters():
        model.get_parameter(name).data = parameter.data  # the new ones are on the meta device
    checkpoint = open_checkpoint(folder)
    backbone = build_backbone(checkpoint.config, checkpoint.tensors, scheme)
    tokens = random_tokens(24)
    with torch.compiler.set_stance("force_eager"), torch.no_grad():
        theirs = model(tokens).logits[:, -1]
    assert relative_error(backbone(tokens, torch.tensor([0])), theirs) < 0.1
    (note,) = [note for note in checkpoint.notes if "BitNet" in note]
    assert "8da4w" in note and "weight-only program does not" in note


def test_modules_that_stay_in_floating_point(at_run_time, tmp_path):
    folder = shutil.copytree(at_run_time[0], tmp_path / "m")

    def opened(modules, **fields):
        settings = SETTINGS | ONLINE | {"modules_to_not_convert": modules}
        return open_checkpoint(change_config(folder, quantization_config=settings, **fields))

    with pytest.raises(InputError, match=r"layers\.0\.self_attn\.q_proj.* floating point"):
        opened(["lm_head", "q_proj"])
    assert opened(["lm_head"]).tensors["output.weight"].is_floating_point()
    assert opened([]).tensors["output.weight"].unique().tolist() == [-1, 0, 1]
    for wrong in (["("], [1], "x", 3):
        with pytest.raises(InputError, match=r"modules_to_not_convert is .*expected a list"):
            opened(wrong)
    tensors = load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="does not name lm_head, which is tied"):
        opened([], tie_word_embeddings=True)
    assert "output.weight" not in opened(None, tie_word_embeddings=True).tensors
