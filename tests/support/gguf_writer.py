"""Models of transformers as GGUF files: names by the gguf package, changes as llama.cpp's
converter makes them."""

from pathlib import Path

import gguf
import torch
import transformers

# Architectures whose Q and K rows the converter puts in interleaved order.
_INTERLEAVED = ("llama", "granite", "smollm3")
_GEMMA = ("gemma2", "gemma3")


def write_gguf(
    path: Path, model: transformers.PreTrainedModel, architecture: str, q4_0: dict | None = None
) -> Path:
    """`model` with float32 tensors, without a tokenizer. `q4_0`: GGUF name -> blocks to use
    instead, uint8 [..., bytes of a row]."""
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    _write_metadata(writer, config, architecture)
    kind = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}[architecture]
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    for name, tensor in _changed(model, architecture).items():
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert found is not None, name
        if q4_0 and found in q4_0:
            writer.add_tensor(found, q4_0[found], raw_dtype=gguf.GGMLQuantizationType.Q4_0)
        else:
            writer.add_tensor(found, tensor.float().contiguous().numpy())
    for which in ("short", "long"):
        divisors = (config.rope_parameters or {}).get(f"{which}_factor")
        if divisors:
            tensor = torch.tensor(divisors, dtype=torch.float32)
            writer.add_tensor(f"rope_factors_{which}.weight", tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_metadata(writer: gguf.GGUFWriter, config, architecture: str) -> None:
    rope = config.rope_parameters
    head_dim = getattr(config, "head_dim", None) or 16
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    hidden = config.intermediate_size
    if architecture == "llama4":
        writer.add_expert_feed_forward_length(hidden)
        writer.add_expert_count(config.num_local_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_interleave_moe_layer_step(config.interleave_moe_layer_step)
        hidden = config.intermediate_size_mlp
    writer.add_feed_forward_length(hidden)
    window = getattr(config, "sliding_window", None)
    if window and architecture != "smollm3":
        writer.add_sliding_window(window)
    if architecture == "phi3":
        writer.add_rope_dimension_count(int(rope["partial_rotary_factor"] * head_dim))
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_attn_factors(rope.get("attention_factor") or 1.0)
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if architecture == "gemma3":
        writer.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])
    if architecture == "granite":
        writer.add_attention_scale(config.attention_multiplier)
        writer.add_embedding_scale(config.embedding_multiplier)
        writer.add_residual_scale(config.residual_multiplier)
        writer.add_logit_scale(config.logits_scaling)


def _changed(model, architecture: str) -> dict[str, torch.Tensor]:
    changed = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        if name.endswith(("q_proj.weight", "k_proj.weight")) and architecture in _INTERLEAVED:
            halves = tensor.unflatten(0, (-1, 2, model.config.hidden_size // 8))
            tensor = halves.transpose(1, 2).reshape(tensor.shape)
        if name.endswith("norm.weight") and architecture in _GEMMA:
            tensor = tensor + 1
        if name.endswith("experts.gate_up_proj"):
            for part, half in zip(("gate", "up"), tensor.chunk(2, dim=-1), strict=True):
                named = name.replace("gate_up", part)
                changed[f"{named}.weight"] = half.transpose(1, 2)
        elif name.endswith("experts.down_proj"):
            changed[f"{name}.weight"] = tensor.transpose(1, 2)
        else:
            changed[name] = tensor
    return changed
