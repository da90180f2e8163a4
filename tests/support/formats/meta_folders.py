"""Models of transformers as Meta releases them: consolidated.00.pth and params.json."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers

_LLAMA_NAMES = {
    "self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv", "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3", "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm", "model.embed_tokens": "tok_embeddings",
    "model.norm": "norm", "lm_head": "output", "model.layers": "layers",
}  # fmt: skip


def write_meta_llama(folder: Path, model: transformers.PreTrainedModel) -> Path:
    """A plain Llama: rows of Q and K in interleaved order."""
    state, config = {}, model.config
    for name, tensor in model.state_dict().items():
        for theirs, ours in _LLAMA_NAMES.items():
            name = name.replace(theirs, ours)
        if ".wq." in name or ".wk." in name:
            # Rows i and i + head_dim / 2 of a head become neighbours.
            halves = tensor.view(-1, 2, config.head_dim // 2, config.hidden_size)
            tensor = halves.transpose(1, 2).reshape(tensor.shape)
        state[name] = tensor.contiguous()
    return _write(folder, state, _params(config) | {"hidden_dim": config.intermediate_size})


def write_meta_llama4(folder: Path, model: transformers.PreTrainedModel) -> Path:
    """Fused projections, experts as [experts * K, N]: Meta's names and params.json."""
    hub, config = model.state_dict(), model.config
    state = {
        "tok_embeddings.weight": hub["model.embed_tokens.weight"],
        "norm.weight": hub["model.norm.weight"],
        "output.weight": hub["lm_head.weight"],
    }
    for layer in range(config.num_hidden_layers):
        state |= _llama4_layer(layer, hub, config.hidden_size)
    params = _params(config) | {
        "head_dim": config.head_dim,
        "use_scaled_rope": False,
        "multiple_of": 2048,
        "ffn_exp": 4.0,
        "ffn_dim_multiplier": 1.2,
        "nope_layer_interval": 4,
        "use_qk_norm": config.use_qk_norm,
        "attention_chunk_size": config.attention_chunk_size,
        "attn_temperature_tuning": True,
        "floor_scale": float(config.floor_scale),
        "attn_scale": config.attn_scale,
        "max_seq_len": config.max_position_embeddings,
        "moe_args": {
            "num_experts": config.num_local_experts,
            "top_k": config.num_experts_per_tok,
            "interleave_moe_layer_step": config.interleave_moe_layer_step,
            "capacity_factor": 1.0,
            "auto_scale_F": True,
        },
    }
    return _write(folder, state, params)


def _llama4_layer(layer: int, hub: dict[str, torch.Tensor], dim: int) -> dict[str, torch.Tensor]:
    theirs, ours = f"model.layers.{layer}", f"layers.{layer}"
    qkv = [hub[f"{theirs}.self_attn.{part}_proj.weight"] for part in "qkv"]
    norm = hub[f"{theirs}.post_attention_layernorm.weight"]
    state = {
        f"{ours}.attention.wqkv.weight": torch.cat(qkv),
        f"{ours}.attention.wqkv.layer_norm_weight": hub[f"{theirs}.input_layernorm.weight"],
        f"{ours}.attention.wo.weight": hub[f"{theirs}.self_attn.o_proj.weight"],
    }
    theirs, ours = f"{theirs}.feed_forward", f"{ours}.feed_forward"
    if f"{theirs}.router.weight" not in hub:
        gate_up = [hub[f"{theirs}.{part}_proj.weight"] for part in ("gate", "up")]
        return state | {
            f"{ours}.mlp.layer_norm_weight": norm,
            f"{ours}.mlp.fc1_weight": torch.cat(gate_up),
            f"{ours}.mlp.fc2_weight": hub[f"{theirs}.down_proj.weight"],
        }
    gate, up = hub[f"{theirs}.experts.gate_up_proj"].chunk(2, dim=-1)
    return state | {
        f"{ours}.norm.weight": norm,
        f"{ours}.router_DE": hub[f"{theirs}.router.weight"].T.contiguous(),
        f"{ours}.experts.moe_w_in_eD_F": gate.reshape(-1, gate.shape[-1]),
        f"{ours}.experts.moe_w_swiglu_eD_F": up.reshape(-1, up.shape[-1]),
        f"{ours}.experts.moe_w_out_eF_D": hub[f"{theirs}.experts.down_proj"].reshape(-1, dim),
        f"{ours}.w_in_shared_FD.weight": hub[f"{theirs}.shared_expert.gate_proj.weight"],
        f"{ours}.w_swiglu_FD.weight": hub[f"{theirs}.shared_expert.up_proj.weight"],
        f"{ours}.w_out_shared_DF.weight": hub[f"{theirs}.shared_expert.down_proj.weight"],
    }


def _params(config: Any) -> dict[str, Any]:
    return {
        "dim": config.hidden_size,
        "n_layers": config.num_hidden_layers,
        "n_heads": config.num_attention_heads,
        "n_kv_heads": config.num_key_value_heads,
        "vocab_size": config.vocab_size,
        "norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_parameters["rope_theta"],
    }


def _write(folder: Path, state: dict[str, torch.Tensor], params: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "consolidated.00.pth")
    (folder / "params.json").write_text(json.dumps(params))
    return folder
