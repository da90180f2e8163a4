"""What llama.cpp's converter makes of the tensors of some families, and the metadata it writes.

Each `{family}_tensors(tensors, config)` takes and gives tensors by their names in transformers.
"""

import re
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]


def gemma3n_tensors(tensors: Tensors, config: Any) -> Tensors:
    """The linears of all streams in one tensor; the table for each layer up to all tokens."""
    made: Tensors = {}
    for name, tensor in tensors.items():
        if name.startswith(("model.altup_projections.", "model.altup_unembed_projections.")):
            module = name.split(".")[1]
            parts = [
                tensors[f"model.{module}.{index}.weight"]
                for index in range(config.altup_num_inputs - 1)
            ]
            made[f"model.{module}.weight"] = torch.stack(parts)
        elif name == "model.embed_tokens_per_layer.weight":
            padding = tensor.new_zeros(config.vocab_size - len(tensor), tensor.shape[1])
            made[name] = torch.cat((tensor, padding))
        else:
            made[f"{name}.weight" if name.endswith("_scale") else name] = tensor
    return made


def gemma3n_figures(config: Any) -> dict[str, Any]:
    parts = torch.tensor(config.activation_sparsity_pattern, dtype=torch.float32)
    return _of_layers_with_windows(config) | {
        "altup_active_idx": config.altup_active_idx,
        "altup_num_inputs": config.altup_num_inputs,
        "activation_sparsity_scale": torch.distributions.Normal(0.0, 1.0).icdf(parts).tolist(),
    }


def _of_layers_with_windows(config: Any) -> dict[str, Any]:
    return {
        "rope_freq_base_swa": config.rope_parameters["sliding_attention"]["rope_theta"],
        "sliding_window": config.sliding_window,
        "sliding_window_pattern": [kind == "sliding_attention" for kind in config.layer_types],
        "shared_kv_layers": config.num_kv_shared_layers,
        "final_logit_softcapping": config.final_logit_softcapping,
        "embedding_length_per_layer_input": config.hidden_size_per_layer_input,
    }


def glm4v_tensors(tensors: Tensors, config: Any) -> Tensors:
    """The rotated rows of queries and keys in halves."""
    width = config.hidden_size // config.num_attention_heads
    rotated = int(width * config.rope_parameters.get("partial_rotary_factor", 1.0))
    order = [*range(0, rotated, 2), *range(1, rotated, 2), *range(rotated, width)]
    return {
        name: tensor.unflatten(0, (-1, width))[:, order].reshape(tensor.shape)
        if ".q_proj." in name or ".k_proj." in name
        else tensor
        for name, tensor in tensors.items()
    }


def glm4v_figures(config: Any) -> dict[str, Any]:
    width = config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters
    return {
        "rope_dimension_count": int(width * rope.get("partial_rotary_factor", 1.0)),
        "rope_dimension_sections": [*rope["mrope_section"], 0],
    }


def expert_bias_tensors(tensors: Tensors, config: Any) -> Tensors:
    """The biases of experts, called so."""
    return {
        f"{name}.bias" if name.endswith(".expert_bias") else name: tensor
        for name, tensor in tensors.items()
    }


def apertus_tensors(tensors: Tensors, config: Any) -> Tensors:
    """Without the numbers of activations, which are metadata."""
    return {name: tensor for name, tensor in tensors.items() if ".act_fn." not in name}


def apertus_figures(tensors: Tensors) -> dict[str, list[float]]:
    """Those numbers, of each layer, as transformers has them."""
    return {
        f"xielu_{part}": [
            tensor.item() for name, tensor in tensors.items() if name.endswith(f"act_fn.{part}")
        ]
        for part in ("alpha_p", "alpha_n", "beta", "eps")
    }


def gemma4_tensors(tensors: Tensors, config: Any) -> Tensors:
    """With what divides the frequencies of layers without a window: nothing turns by 1e30."""
    rope = config.rope_parameters["full_attention"]
    planes = _wide(config) // 2
    turned = int(planes * rope["partial_rotary_factor"])
    divisors = torch.tensor([1.0] * turned + [1e30] * (planes - turned))
    scalars = {
        f"{name}.weight" if name.endswith("layer_scalar") else name: tensor
        for name, tensor in tensors.items()
    }
    return scalars | {"rope.freqs.weight": divisors}


def gemma4_figures(config: Any) -> dict[str, Any]:
    """Lengths are of the heads without a window; each layer has a width where they differ."""
    width, narrow = config.intermediate_size, config.num_hidden_layers
    if config.use_double_wide_mlp:
        narrow -= config.num_kv_shared_layers
        width = [width] * narrow + [2 * width] * config.num_kv_shared_layers
    wide, of_windows = _wide(config), config.to_dict()["head_dim"]
    layers = range(config.num_hidden_layers)
    kv_heads = [config.per_layer_config[index].num_key_value_heads for index in layers]
    return _of_layers_with_windows(config) | {
        "head_count_kv": kv_heads,
        "feed_forward_length": width,
        "key_length": wide,
        "value_length": wide,
        "rope_dimension_count": wide,
        "key_length_swa": of_windows,
        "value_length_swa": of_windows,
        "rope_dimension_count_swa": of_windows,
    }


def _wide(config: Any) -> int:
    full = config.layer_types.index("full_attention")
    return config.per_layer_config[full].head_dim


def qwen3_5_tensors(tensors: Tensors, config: Any) -> Tensors:
    """Value heads once for all keys, again and again; norms about 1; decays as they are applied."""
    made: Tensors = {}
    for name, tensor in tensors.items():
        part = name.rpartition(".linear_attn.")[2]
        if part == name:
            made[name] = tensor + 1 if name.endswith("norm.weight") else tensor
        elif part == "A_log":
            made[name] = _reordered(-torch.exp(tensor), config, 0, 1)
        elif part == "dt_bias":
            made[name.replace("dt_bias", "dt_proj.bias")] = _reordered(tensor, config, 0, 1)
        elif part == "norm.weight":
            made[name] = tensor
        elif part == "out_proj.weight":
            made[name] = _reordered(tensor, config, 1, config.linear_value_head_dim)
        elif part in ("in_proj_a.weight", "in_proj_b.weight"):
            made[name] = _reordered(tensor, config, 0, 1)
        else:  # those of channels, the queries' and keys' first
            tensor = tensor.squeeze(1) if part == "conv1d.weight" else tensor
            values = config.linear_num_value_heads * config.linear_value_head_dim
            before, last = tensor[:-values], tensor[-values:]
            after = _reordered(last, config, 0, config.linear_value_head_dim)
            made[name] = torch.cat((before, after))
    return made


def qwen3_next_tensors(tensors: Tensors, config: Any, legacy: bool = False) -> Tensors:
    """Queries, keys, values and gate apart, or `legacy` as they were; the rest as Qwen 3.5's."""
    keys, width = config.linear_num_key_heads, config.linear_key_head_dim
    values = config.linear_num_value_heads // keys * config.linear_value_head_dim
    made: Tensors = {}
    for name, tensor in tensors.items():
        part = name.rpartition(".linear_attn.")[2]
        if part == "in_proj_qkvz.weight" and not legacy:
            q, k, v, z = (
                part.flatten(0, 1)
                for part in tensor.unflatten(0, (keys, -1)).split([width, width, values, values], 1)
            )
            made[name.replace("qkvz", "qkv")] = torch.cat((q, k, v))
            made[name.replace("qkvz", "z")] = z
        elif part == "A_log":
            made[name] = -torch.exp(tensor)
        elif part == "dt_bias":
            made[name.replace("dt_bias", "dt_proj.bias")] = tensor
        elif part == "conv1d.weight":
            made[name] = tensor.squeeze(1)
        else:
            about_0 = name.endswith("norm.weight") and part != "norm.weight"
            made[name] = tensor + 1 if about_0 else tensor
    return made


def state_space_tensors(tensors: Tensors, config: Any) -> Tensors:
    """What decays as it is applied; numbers of heads in a column, norms by groups."""
    made: Tensors = {}
    for name, tensor in tensors.items():
        part = re.split(r"\.(?:mamba|mixer)\.", name)[-1]
        if part == "A_log":
            made[name] = -torch.exp(tensor).unsqueeze(1)
        elif part == "D":
            made[name] = tensor.unsqueeze(1)
        elif part == "dt_bias":
            made[name.replace("dt_bias", "dt_proj.bias")] = tensor
        elif part == "conv1d.weight":
            made[name] = tensor.squeeze(1)
        elif part == "norm.weight" and part != name:
            made[name] = tensor.view(_groups(config), -1)
        else:
            made[name] = tensor
    return made


def _groups(config: Any) -> int:
    return config.n_groups if config.model_type == "nemotron_h" else config.mamba_n_groups


def nemotron_h_tensors(tensors: Tensors, config: Any) -> Tensors:
    named = state_space_tensors(tensors, config).items()
    return {name.replace("model.", "backbone."): tensor for name, tensor in named}


def nemotron_h_figures(config: Any) -> dict[str, Any]:
    kinds = config.layers_block_type
    return {
        "layer_norm_rms_eps": config.layer_norm_epsilon,
        "head_count_kv": [config.num_key_value_heads * (k == "full_attention") for k in kinds],
        "feed_forward_length": [config.intermediate_size * (k == "mlp") for k in kinds],
        "ssm_conv_kernel": config.conv_kernel,
        "ssm_state_size": config.ssm_state_size,
        "ssm_group_count": config.n_groups,
        "ssm_inner_size": config.mamba_num_heads * config.mamba_head_dim,
        "ssm_time_step_rank": config.mamba_num_heads,
    }


def state_space_figures(config: Any) -> dict[str, Any]:
    return {
        "ssm_conv_kernel": config.mamba_d_conv,
        "ssm_state_size": config.mamba_d_state,
        "ssm_group_count": config.mamba_n_groups,
        "ssm_inner_size": config.mamba_n_heads * config.mamba_d_head,
        "ssm_time_step_rank": config.mamba_n_heads,
    }


def granite4_tensors(tensors: Tensors, config: Any) -> Tensors:
    """Gate and up of the feed-forward of every token apart."""
    kind = "_shexp" if config.num_local_experts else ""
    made: Tensors = {}
    for name, tensor in state_space_tensors(tensors, config).items():
        layer = name.split(".")[2] if ".layers." in name else ""
        if name.endswith("shared_mlp.input_linear.weight"):
            for part, half in zip(("gate", "up"), tensor.chunk(2), strict=True):
                made[f"blk.{layer}.ffn_{part}{kind}.weight"] = half
        elif name.endswith("shared_mlp.output_linear.weight"):
            made[f"blk.{layer}.ffn_down{kind}.weight"] = tensor
        else:
            made[name] = tensor
    return made


def granite4_figures(config: Any) -> dict[str, Any]:
    attends = [kind == "full_attention" for kind in config.layer_types]
    experts = config.num_local_experts
    return state_space_figures(config) | {
        "attention_scale": config.attention_multiplier,
        "embedding_scale": config.embedding_multiplier,
        "residual_scale": config.residual_multiplier,
        "logit_scale": config.logits_scaling,
        "head_count_kv": [config.num_key_value_heads * each for each in attends],
        "rope_scaling_finetuned": False,
        "expert_count": experts or None,
        "expert_used_count": config.num_experts_per_tok if experts else None,
        "expert_shared_feed_forward_length": config.shared_intermediate_size,
        "feed_forward_length": config.intermediate_size,
    }


def falcon_h1_tensors(tensors: Tensors, config: Any) -> Tensors:
    """All multipliers made part of what they multiply."""
    inner, groups = config.mamba_d_ssm, config.mamba_n_groups * config.mamba_d_state
    given = config.attention_in_multiplier
    factors = {
        "embed_tokens": config.embedding_multiplier,
        "lm_head": config.lm_head_multiplier,
        "q_proj": given,
        "k_proj": given * config.key_multiplier,
        "v_proj": given,
        "o_proj": config.attention_out_multiplier,
        "gate_proj": config.mlp_multipliers[0],
        "down_proj": config.mlp_multipliers[1],
        "out_proj": config.ssm_out_multiplier,
    }
    made: Tensors = {}
    for name, tensor in state_space_tensors(tensors, config).items():
        module = name.split(".")[-2] if "." in name else name
        if module == "in_proj":
            parts = tensor.split([inner, inner, groups, groups, config.mamba_n_heads])
            pairs = zip(parts, config.ssm_multipliers, strict=True)
            made[name] = torch.cat([part * factor for part, factor in pairs])
            made[name] *= config.ssm_in_multiplier
        else:
            made[name] = tensor * factors.get(module, 1.0)
    return made


def _reordered(tensor: torch.Tensor, config: Any, axis: int, width: int) -> torch.Tensor:
    keys = config.linear_num_key_heads
    each = config.linear_num_value_heads // keys
    heads = tensor.unflatten(axis, (keys, each, width))
    return heads.transpose(axis, axis + 1).flatten(axis, axis + 2)


def qwen3_5_figures(config: Any) -> dict[str, Any]:
    rope = config.rope_parameters
    return {
        "rope_dimension_count": int(config.head_dim * rope["partial_rotary_factor"]),
        "rope_dimension_sections": [*rope["mrope_section"], 0] if "mrope_section" in rope else None,
        "ssm_conv_kernel": config.linear_conv_kernel_dim,
        "ssm_state_size": config.linear_key_head_dim,
        "ssm_group_count": config.linear_num_key_heads,
        "ssm_time_step_rank": config.linear_num_value_heads,
        "ssm_inner_size": config.linear_num_value_heads * config.linear_value_head_dim,
        "full_attention_interval": config.layer_types.index("full_attention") + 1,
    }


def qwen2_moe_figures(config: Any) -> dict[str, Any]:
    return {
        "expert_count": config.num_experts,
        "expert_used_count": config.num_experts_per_tok,
        "expert_feed_forward_length": config.moe_intermediate_size,
        "expert_shared_feed_forward_length": config.shared_expert_intermediate_size,
    }


def qwen3_next_figures(config: Any) -> dict[str, Any]:
    return qwen3_5_figures(config) | qwen2_moe_figures(config)


def qwen3_5_moe_figures(config: Any) -> dict[str, Any]:
    return qwen3_next_figures(config) | {"feed_forward_length": None}


def bitnet_tensors(tensors: Tensors, config: Any) -> Tensors:
    """The norms as the gguf package knows them, by the names of the first models."""
    first = {"attn_sub_norm": "inner_attn_ln", "ffn_sub_norm": "ffn_layernorm"}
    renamed = {}
    for name, tensor in tensors.items():
        for ours, theirs in first.items():
            name = name.replace(ours, theirs)
        renamed[name] = tensor
    return renamed


def phi2_tensors(tensors: Tensors, config: Any) -> Tensors:
    return {
        name.replace("final_layernorm", "norm").replace("self_attn.dense", "self_attn.o_proj"): each
        for name, each in tensors.items()
    }


def gpt2_tensors(tensors: Tensors, config: Any) -> Tensors:
    """Matrices as everywhere else; the output layer is written too, as the first converters did."""
    made = {
        name: each.T if re.search(r"\.c_\w+\.weight$", name) else each
        for name, each in tensors.items()
    }
    return made | {"lm_head.weight": tensors["transformer.wte.weight"]}


def phi2_tensors_of_the_first_files(tensors: Tensors, config: Any) -> Tensors:
    """Queries, keys and values in one."""
    made = phi2_tensors(tensors, config)
    for layer in range(config.num_hidden_layers):
        for kind in ("weight", "bias"):
            parts = [made.pop(f"model.layers.{layer}.self_attn.{x}_proj.{kind}") for x in "qkv"]
            made[f"blk.{layer}.attn_qkv.{kind}"] = torch.cat(parts)
    return made


def minicpm3_figures(config: Any) -> dict[str, Any]:
    return {
        "q_lora_rank": config.q_lora_rank,
        "kv_lora_rank": config.kv_lora_rank,
        "key_length": config.qk_nope_head_dim + config.qk_rope_head_dim,
        "value_length": None,
        "rope_dimension_count": config.qk_rope_head_dim,
    }


def deepseek2_tensors(tensors: Tensors, config: Any) -> Tensors:
    """The matrices of heads apart, those of keys transposed."""
    made: Tensors = {}
    for name, tensor in tensors.items():
        if name.endswith("kv_b_proj.weight"):
            still = config.qk_nope_head_dim
            heads = tensor.unflatten(0, (config.num_attention_heads, -1))
            made[name.replace("kv_b_proj", "k_b_proj")] = heads[:, :still].transpose(1, 2)
            made[name.replace("kv_b_proj", "v_b_proj")] = heads[:, still:]
        else:
            made[name] = tensor
    return made


def deepseek2_figures(config: Any) -> dict[str, Any]:
    """Of a model without experts."""
    return {
        "head_count_kv": 1,
        "leading_dense_block_count": config.num_hidden_layers,
        "expert_feed_forward_length": config.intermediate_size,
        "expert_shared_count": 0,
        "q_lora_rank": config.q_lora_rank,
        "kv_lora_rank": config.kv_lora_rank,
        "key_length": config.kv_lora_rank + config.qk_rope_head_dim,
        "value_length": config.kv_lora_rank,
        "key_length_mla": config.qk_nope_head_dim + config.qk_rope_head_dim,
        "value_length_mla": config.v_head_dim,
        "rope_dimension_count": config.qk_rope_head_dim,
    }


def granite_moe_shared_tensors(tensors: Tensors, config: Any) -> Tensors:
    """Gate and up of the shared expert apart."""
    made: Tensors = {}
    for name, tensor in tensors.items():
        layer, shared, _ = name.partition(".shared_mlp.input_linear")
        if shared:
            block = f"blk.{layer.rpartition('.')[2]}"
            halves = tensor.chunk(2)
            made[f"{block}.ffn_gate_shexp.weight"] = halves[0]
            made[f"{block}.ffn_up_shexp.weight"] = halves[1]
        else:
            made[name] = tensor
    return made


def ernie_moe_tensors(tensors: Tensors, config: Any) -> Tensors:
    """The biases of experts as vectors, by the name that files on the hub have."""
    made: Tensors = {}
    for name, tensor in tensors.items():
        layer, bias, _ = name.partition(".mlp.gate.moe_statics.")
        if bias:
            made[f"blk.{layer.rpartition('.')[2]}.exp_probs_b.bias"] = tensor.squeeze()
        else:
            made[name] = tensor
    return made
