"""Llama 4: its experts, the model that also sees, and Meta's shards."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.formats.meta_folders import write_meta_llama4
from tests.support.models.families import LLAMA4
from tests.support.models.knobs import TINY as KNOBS_TINY
from tests.support.models.peers import (
    TOLERANCE,
    backbone_of,
    parity_error,
    prefill_then_decode,
    random_model,
    random_tokens,
    relative_error,
    saved,
)

from quatrain.backbone.layers.moe import MixtureOfExperts
from quatrain.backbone.params.params import config_from_params
from quatrain.checkpoint.open import open_float_model
from quatrain.errors import InputError
from quatrain.quantize.pipeline import quantize_model
from quatrain.verify.eager import load_eager


def llama4(**fields):
    return random_model("Llama4", **{**LLAMA4, **fields})


def test_of_equal_experts_the_first_is_picked(tmp_path, monkeypatch):
    """A router with two equal rows, by a top-k that keeps their order, which torch's does not."""

    def topk(x, k, dim=-1):
        return [part.narrow(dim, 0, k) for part in x.sort(dim=dim, descending=True, stable=True)]

    monkeypatch.setattr(torch, "topk", topk)
    model = llama4(interleave_moe_layer_step=1)
    for name, parameter in model.named_parameters():
        if name.endswith("router.weight"):
            parameter[1] = parameter[0]
    assert parity_error(model, tmp_path) < TOLERANCE


@pytest.mark.parametrize("activated", [1, 2, 3])
def test_as_many_experts_as_asked_for(activated):
    fields = {"num_experts": 16, "num_activated_experts": activated}
    mixture = MixtureOfExperts(config_from_params({**KNOBS_TINY, **fields}, "params.json"))
    with torch.no_grad():
        mixture.router.weight.normal_(0.0, 0.1)
        equal = [2, 3, 5, 7, 11, 13]
        mixture.router.weight[equal] = mixture.router.weight[2].clone()
        picked = mixture.scores(torch.randn(1, 200, 64)) > 0
    assert (picked.sum(-1) == activated).all()
    assert picked[..., equal[activated - 1]].any() and not picked[..., equal[activated:]].any()


@pytest.mark.parametrize("scheme", ["8da4w", "weight-only"])
def test_experts_of_int4_stand_for_what_they_were_rounded_to(scheme, tmp_path):
    """A checkpoint holds [experts, N, K]; the backbone computes with the same numbers."""
    folder = saved(llama4(attention_chunk_size=8, floor_scale=4), tmp_path / "model")
    quantize_model(folder, tmp_path / "int4", embedding="fp", method="rtn")
    quantized = load_eager(tmp_path / "int4", scheme)
    floating = backbone_of(folder)
    state = floating.state_dict()
    for name, module in quantized.named_modules():
        if hasattr(module, "dequantized_weight"):
            state[f"{name}.weight"].copy_(module.dequantized_weight())
    tokens = random_tokens(20)
    ours = prefill_then_decode(quantized, tokens, 7)
    # What is left is the rounding of activations, where there is any.
    tolerance = 0.1 if scheme == "8da4w" else TOLERANCE
    assert relative_error(ours, prefill_then_decode(floating, tokens, 7)) < tolerance
    experts = quantized.layers[1].feed_forward.experts
    assert len(experts) == 4 and experts[3].w2.weight.shape == (64, 64)


@pytest.mark.parametrize("prefix", ["language_model.model", "model.language_model"])
def test_text_model_of_one_that_also_sees(prefix, tmp_path):
    folder = saved(llama4(), tmp_path / "hub")
    expected = prefill_then_decode(backbone_of(folder), random_tokens(20), 7)
    config = json.loads((folder / "config.json").read_text())
    config = {"model_type": "llama4", "text_config": config, "vision_config": {}}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    head = "language_model.lm_head" if prefix.startswith("language") else "lm_head"
    names = {name: name.replace("model", prefix, 1).replace("lm_head", head) for name in tensors}
    tensors = {names[name]: tensor for name, tensor in tensors.items()}
    save_file(tensors | {"vision_model.a.weight": torch.ones(2)}, folder / "model.safetensors")
    ours = prefill_then_decode(backbone_of(folder), random_tokens(20), 7)
    assert relative_error(ours, expected) < TOLERANCE


@pytest.mark.parametrize(
    ("shape", "message"), [((), "columns, r"), ((4, 8), "columns, r"), ((4, 8, 3), "as many of up")]
)
def test_experts_that_are_not_matrices(shape, message, tmp_path):
    file = saved(llama4(), tmp_path) / "model.safetensors"
    tensors = load_file(file)
    name = "model.layers.1.feed_forward.experts.gate_up_proj"
    save_file(tensors | {name: torch.ones(shape)}, file)
    with pytest.raises(InputError, match=rf"experts\.gate_up_proj has shape.*{message}"):
        open_float_model(tmp_path)


def test_meta_shards(tmp_path):
    """A shard has the fused tensors of its own heads and channels, one after the other."""
    meta = write_meta_llama4(tmp_path / "meta", llama4(attention_chunk_size=8))
    expected = prefill_then_decode(backbone_of(meta), random_tokens(20), 7)
    state = torch.load(meta / "consolidated.00.pth")
    for shard in (0, 1):
        mine = {name: _of_shard(name, tensor, shard) for name, tensor in state.items()}
        torch.save(mine, meta / f"consolidated.{shard:02}.pth")
    ours = prefill_then_decode(backbone_of(meta), random_tokens(20), 7)
    assert relative_error(ours, expected) < TOLERANCE


def _of_shard(name: str, tensor: torch.Tensor, shard: int) -> torch.Tensor:
    """Half of a tensor, as two GPUs have it."""
    if "norm" in name or "router" in name:
        return tensor
    if "wqkv" in name or "fc1" in name:
        parts = tensor.split([64, 32, 32] if "wqkv" in name else [96, 96])
        return torch.cat([part.chunk(2)[shard] for part in parts])
    if "moe_w_out" in name:
        return tensor.view(4, -1, 64).chunk(2, 1)[shard].reshape(-1, 64)
    by_columns = ("wo.weight", "fc2_weight", "w_out_shared_DF.weight", "eD_F")
    return tensor.chunk(2, dim=1 if name.endswith(by_columns) else 0)[shard].clone()
