"""The Llama 4 text model against transformers' Llama4ForCausalLM, and in Meta's own layout."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.knobs import TINY as KNOBS_TINY
from tests.support.peers import (
    TOLERANCE,
    backbone_of,
    parity_error,
    prefill_then_decode,
    random_model,
    random_tokens,
    relative_error,
    saved,
)

from quatrain.backbone.config import config_from_params
from quatrain.backbone.moe import MixtureOfExperts
from quatrain.quantize.model import quantize_model
from quatrain.verify.eager import load_eager

TINY = {
    "num_hidden_layers": 4, "head_dim": 16, "intermediate_size": 64, "intermediate_size_mlp": 96,
    "num_local_experts": 4, "num_experts_per_tok": 1, "interleave_moe_layer_step": 2,
    "no_rope_layer_interval": 4, "attention_chunk_size": 128, "floor_scale": 8192,
    "pad_token_id": 0, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
}  # fmt: skip
MODELS = {
    "dense only": {"moe_layers": []},
    "mixture of experts in every other layer": {},
    "two experts a token, in every layer": {
        "num_experts_per_tok": 2, "interleave_moe_layer_step": 1,
    },
    "chunk boundary crossed": {"attention_chunk_size": 8},
    "temperature scale crossed": {"floor_scale": 4, "attn_scale": 0.3},
    "no QK norm, every layer rotated, tied": {
        "use_qk_norm": False, "no_rope_layers": [1, 1, 1, 1], "tie_word_embeddings": True,
    },
    "all at once": {
        "attention_chunk_size": 8, "floor_scale": 4, "num_experts_per_tok": 3,
    },
}  # fmt: skip


def llama4(**fields):
    return random_model("Llama4", **{**TINY, **fields})


@pytest.mark.parametrize("name", MODELS)
def test_llama4_equals_transformers(name, tmp_path):
    assert parity_error(llama4(**MODELS[name]), tmp_path) < TOLERANCE


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
    quantize_model(folder, tmp_path / "int4", embedding="fp")
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


def test_meta_layout(tmp_path):
    """Fused projections, experts as [experts * K, N]: Meta's names and params.json."""
    model = llama4(attention_chunk_size=8)
    folder = saved(model, tmp_path / "hub")
    expected = prefill_then_decode(backbone_of(folder), random_tokens(20), 7)
    meta = _write_meta(tmp_path / "meta", model.state_dict())
    ours = prefill_then_decode(backbone_of(meta), random_tokens(20), 7)
    assert relative_error(ours, expected) < TOLERANCE


def test_meta_shards(tmp_path):
    """A shard has the fused tensors of its own heads and channels, one after the other."""
    meta = _write_meta(tmp_path / "meta", llama4(attention_chunk_size=8).state_dict())
    expected = prefill_then_decode(backbone_of(meta), random_tokens(20), 7)
    state = torch.load(meta / "consolidated.00.pth")
    for shard in (0, 1):
        mine = {name: _of_shard(name, tensor, shard) for name, tensor in state.items()}
        torch.save(mine, meta / f"consolidated.{shard:02}.pth")
    ours = prefill_then_decode(backbone_of(meta), random_tokens(20), 7)
    assert torch.equal(ours, expected)


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


def _write_meta(folder: Path, hub: dict[str, torch.Tensor]) -> Path:
    state = {
        "tok_embeddings.weight": hub["model.embed_tokens.weight"],
        "norm.weight": hub["model.norm.weight"],
        "output.weight": hub["lm_head.weight"],
    }
    for layer in range(4):
        theirs, ours = f"model.layers.{layer}", f"layers.{layer}"
        qkv = [hub[f"{theirs}.self_attn.{part}_proj.weight"] for part in "qkv"]
        norm = hub[f"{theirs}.post_attention_layernorm.weight"]
        state |= {
            f"{ours}.attention.wqkv.weight": torch.cat(qkv),
            f"{ours}.attention.wqkv.layer_norm_weight": hub[f"{theirs}.input_layernorm.weight"],
            f"{ours}.attention.wo.weight": hub[f"{theirs}.self_attn.o_proj.weight"],
        }
        theirs, ours = f"{theirs}.feed_forward", f"{ours}.feed_forward"
        if layer % 2 == 0:
            gate_up = [hub[f"{theirs}.{part}_proj.weight"] for part in ("gate", "up")]
            state |= {
                f"{ours}.mlp.layer_norm_weight": norm,
                f"{ours}.mlp.fc1_weight": torch.cat(gate_up),
                f"{ours}.mlp.fc2_weight": hub[f"{theirs}.down_proj.weight"],
            }
            continue
        gate, up = hub[f"{theirs}.experts.gate_up_proj"].chunk(2, dim=-1)
        state |= {
            f"{ours}.norm.weight": norm,
            f"{ours}.router_DE": hub[f"{theirs}.router.weight"].T.contiguous(),
            f"{ours}.experts.moe_w_in_eD_F": gate.reshape(-1, 64),
            f"{ours}.experts.moe_w_swiglu_eD_F": up.reshape(-1, 64),
            f"{ours}.experts.moe_w_out_eF_D": hub[f"{theirs}.experts.down_proj"].reshape(-1, 64),
            f"{ours}.w_in_shared_FD.weight": hub[f"{theirs}.shared_expert.gate_proj.weight"],
            f"{ours}.w_swiglu_FD.weight": hub[f"{theirs}.shared_expert.up_proj.weight"],
            f"{ours}.w_out_shared_DF.weight": hub[f"{theirs}.shared_expert.down_proj.weight"],
        }
    folder.mkdir()
    torch.save(state, folder / "consolidated.00.pth")
    params = {
        "dim": 64, "n_layers": 4, "n_heads": 4, "n_kv_heads": 2, "head_dim": 16, "vocab_size": 96,
        "norm_eps": 1e-5, "rope_theta": 500000.0, "use_scaled_rope": False, "multiple_of": 2048,
        "ffn_exp": 4.0, "ffn_dim_multiplier": 1.2, "nope_layer_interval": 4, "use_qk_norm": True,
        "attention_chunk_size": 8, "attn_temperature_tuning": True, "floor_scale": 8192.0,
        "attn_scale": 0.1, "max_seq_len": 64,
        "moe_args": {"num_experts": 4, "top_k": 1, "interleave_moe_layer_step": 2,
                     "capacity_factor": 1.0, "auto_scale_F": True},
    }  # fmt: skip
    (folder / "params.json").write_text(json.dumps(params))
    return folder
