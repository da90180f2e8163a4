"""Quantized folders of families whose tensors the hub lays out otherwise than Llama's."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.checkpoint.families.test_families import FAMILIES
from tests.checkpoint.families.test_llama4 import TINY as LLAMA4
from tests.support import quantized_folders as folders
from tests.support.peers import (
    TOLERANCE,
    prefill_then_decode,
    random_model,
    random_tokens,
    relative_error,
)
from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
from torchao.quantization import IntxWeightOnlyConfig, PerGroup, quantize_

from quatrain.backbone.build import build_backbone
from quatrain.checkpoint import open_checkpoint
from quatrain.errors import InputError
from quatrain.quantize import quantize_groups

MODELS = {
    "phi3": FAMILIES["phi4 mini"],
    "gemma2": FAMILIES["gemma2"],
    "gemma3": FAMILIES["gemma3"],
    "llama4": ("Llama4", LLAMA4),
}
METHODS = ["gptq", "awq", "compressed-tensors"]


def write(folder, kind, fields, method):
    """(a folder of the model with its linears int4, the model of transformers on their values)."""
    model = random_model(kind, **fields)
    model.set_attn_implementation("eager")
    model.save_pretrained(folder)
    file = folder / "model.safetensors"
    tensors = one_by_one(load_file(file))
    rounded = {}
    for name in list(tensors):
        if name.endswith("_proj.weight"):
            values, scales = quantize_groups(tensors.pop(name), folders.GROUP)
            rounded[name] = (values.unflatten(1, (-1, folders.GROUP)) * scales[..., None]).flatten(
                1
            )
            for part, packed in folders._PACK[method](values, scales).items():
                tensors[name.replace("weight", part)] = packed.contiguous()
    save_file(tensors, file)
    config = folder / "config.json"
    said = json.loads(config.read_text()) | {"quantization_config": folders.SETTINGS[method]}
    config.write_text(json.dumps(said))
    load(model, rounded)
    return folder, model


def one_by_one(tensors):
    """Experts as quantizers leave them: a linear each."""
    apart = {}
    for name, tensor in tensors.items():
        place, _, part = name.rpartition(".")
        if not place.endswith(".experts"):
            apart[name] = tensor
            continue
        for index, expert in enumerate(tensor):
            turned = expert.t()
            pieces = {part: turned}
            if part == "gate_up_proj":
                pieces = dict(zip(("gate_proj", "up_proj"), turned.chunk(2), strict=True))
            for piece, weight in pieces.items():
                apart[f"{place}.{index}.{piece}.weight"] = weight.contiguous()
    return apart


def load(model, rounded):
    """Put the rounded weights into `model`."""
    state = model.state_dict()
    for name, weight in rounded.items():
        place, _, rest = name.partition(".experts.")
        if not rest:
            state[name].copy_(weight)
            continue
        index, part, _ = rest.split(".")
        if part == "down_proj":
            state[f"{place}.experts.down_proj"][int(index)].copy_(weight.t())
        else:
            half = state[f"{place}.experts.gate_up_proj"][int(index)].chunk(2, dim=-1)
            half[part == "up_proj"].copy_(weight.t())


def logits_error(folder, model):
    """How far the checkpoint `folder` is from the `model` of transformers."""
    checkpoint = open_checkpoint(folder)
    checkpoint.check_values()
    tokens = random_tokens(24, model.config.vocab_size)
    backbone = build_backbone(checkpoint.config, checkpoint.tensors, "weight-only")
    ours = prefill_then_decode(backbone, tokens, 9)
    return relative_error(ours, model(tokens).logits[:, 8:])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", MODELS)
def test_logits_are_those_of_transformers_on_the_same_values(family, method, tmp_path):
    assert logits_error(*write(tmp_path, *MODELS[family], method)) < TOLERANCE


@pytest.mark.parametrize("family", ["phi3", "gemma3"])
def test_torchao(family, tmp_path):
    kind, fields = MODELS[family]
    model = random_model(kind, **fields)
    model.set_attn_implementation("eager")
    model.save_pretrained(tmp_path)
    config = IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(folders.GROUP))
    head = model.lm_head
    quantize_(model, config, lambda part, _: isinstance(part, torch.nn.Linear) and part is not head)
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    save_file(*flatten_tensor_state_dict(state)[:1], tmp_path / "model.safetensors")
    assert logits_error(tmp_path, model) < TOLERANCE


def test_an_expert_that_is_missing(tmp_path):
    folder, _ = write(tmp_path, *MODELS["llama4"], "gptq")
    file = folder / "model.safetensors"
    tensors = {n: t for n, t in load_file(file).items() if ".experts.2.gate_proj" not in n}
    save_file(tensors, file)
    with pytest.raises(InputError, match=r"experts\.gate_proj\.\w+ are incomplete"):
        open_checkpoint(folder)


def test_experts_that_were_left_in_floating_point(tmp_path):
    folder, model = write(tmp_path, *MODELS["llama4"], "gptq")
    file = folder / "model.safetensors"
    tensors = {n: t for n, t in load_file(file).items() if ".experts." not in n}
    tensors |= {n: t for n, t in model.state_dict().items() if ".experts." in n}
    save_file(tensors, file)
    with pytest.raises(InputError, match=r"experts\.w\d"):
        open_checkpoint(folder)
