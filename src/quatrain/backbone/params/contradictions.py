"""Fields of a `params.json` that do not go together."""

from collections.abc import Iterator

from quatrain.backbone.config import BackboneConfig

# What latent attention has none of.
_NOT_LATENT = (
    "attention_qkv_bias", "attention_output_bias", "use_qk_norm", "use_attn_o_norm",
    "use_attn_o_gate", "use_v_norm", "use_sub_norms", "num_kv_shared_layers",
    "attn_temperature_tuning", "no_rope_layer_interval", "global_head_dim", "n_global_kv_heads",
    "layer_types",
)  # fmt: skip


def contradictions(config: BackboneConfig) -> Iterator[str]:
    """Each pair of fields that do not go together, as a sentence."""
    yield from _of_attention(config)
    yield from _of_latent_attention(config)
    yield from _of_rotations(config)
    yield from _of_norms(config)
    yield from _of_feed_forward(config)
    yield from _of_experts(config)
    yield from _of_vocabulary(config)
    yield from _of_shared_keys(config)
    yield from _of_per_layer_embeddings(config)


def _of_per_layer_embeddings(config: BackboneConfig) -> Iterator[str]:
    if config.per_layer_dim and (not config.apply_embedding or config.input_prune_map):
        yield "per_layer_dim needs token ids: apply_embedding true, and no input_prune_map"
    if config.altup_num_inputs > 1 and not config.per_layer_dim:
        yield "altup_num_inputs is for models with an embedding for each layer, per_layer_dim"


def _of_attention(config: BackboneConfig) -> Iterator[str]:
    for name in ("n_kv_heads", "n_global_kv_heads"):
        kv_heads = getattr(config, name) or 1
        if config.n_heads % kv_heads:
            yield f"n_heads {config.n_heads} is not a multiple of {name} {kv_heads}"
    if config.scale_query_by != 1.0 and not config.use_qk_norm:
        yield "scale_query_by scales normed queries, so it needs use_qk_norm"
    if config.layer_types is not None and len(config.layer_types) != config.n_layers:
        yield f"layer_types has {len(config.layer_types)} entries, n_layers is {config.n_layers}"
    if "conv" in (config.layer_types or ()):
        yield from _of_convolutions(config)
    if "linear_attention" in (config.layer_types or ()):
        yield from _of_delta_rules(config)
    if {"mamba", "hybrid"} & {*(config.layer_types or ())}:
        yield from _of_state_spaces(config)
    if config.num_kv_shared_layers >= config.n_layers:
        yield f"num_kv_shared_layers {config.num_kv_shared_layers} leaves no layer with keys"


def _of_rotations(config: BackboneConfig) -> Iterator[str]:
    for name in ("head_dim", "global_head_dim"):
        if (getattr(config, name) or 0) % 2:
            yield f"{name} {getattr(config, name)} is odd; rotary embedding needs even"
    positions = config.learned_positions
    if positions and positions < config.max_seq_len:
        yield f"max_seq_len is {config.max_seq_len}, expected at most learned_positions {positions}"
    if config.global_rotary_planes > 1:
        yield f"global_rotary_planes is {config.global_rotary_planes}, expected at most 1"
    if config.global_rotary_planes < 1 and not config.use_hf_rope:
        yield "global_rotary_planes below 1 is for rotations in halves, so it needs use_hf_rope"
    if config.partial_rotary_factor > 1:
        yield f"partial_rotary_factor is {config.partial_rotary_factor}, expected at most 1"
    rotated = int(config.rotary_dim * config.partial_rotary_factor)
    if not rotated or rotated % 2:
        yield f"partial_rotary_factor {config.partial_rotary_factor} rotates {rotated} channels"
    for name in ("short", "long"):
        factors = getattr(config, f"rope_scaling_{name}_factor")
        if factors is not None and len(factors) != rotated // 2:
            yield f"rope_scaling_{name}_factor has {len(factors)} figures, expected {rotated // 2}"
    if (config.rope_scaling_short_factor is None) != (config.rope_scaling_long_factor is None):
        yield "rope_scaling_short_factor and rope_scaling_long_factor belong together"


def _of_latent_attention(config: BackboneConfig) -> Iterator[str]:
    parts = "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"
    if not config.kv_lora_rank:
        stated = [name for name in ("q_lora_rank", *parts) if getattr(config, name)]
        if stated:
            yield f"{stated[0]} is for latent attention, which needs kv_lora_rank"
        return
    for name in parts:
        if not getattr(config, name):
            yield f"kv_lora_rank is {config.kv_lora_rank}, which needs {name}"
    if config.head_dim != config.qk_nope_head_dim + config.qk_rope_head_dim:
        yield f"head_dim is {config.head_dim}, expected qk_nope_head_dim + qk_rope_head_dim"
    if config.qk_rope_head_dim % 2:
        yield f"qk_rope_head_dim {config.qk_rope_head_dim} is odd; rotary embedding needs even"
    plain = BackboneConfig(1, 1, 1, 1, 1, 1, 1)
    for name in _NOT_LATENT:
        if getattr(config, name) != getattr(plain, name):
            yield f"{name} is for attention to keys and values, and kv_lora_rank for latent vectors"


def _of_convolutions(config: BackboneConfig) -> Iterator[str]:
    if config.conv_L_cache < 2:
        yield f"conv_L_cache {config.conv_L_cache} reads no other token, expected 2 or more"
    if config.num_kv_shared_layers:
        yield "num_kv_shared_layers is for layers that all attend, and layer_types has 'conv'"


def _of_delta_rules(config: BackboneConfig) -> Iterator[str]:
    for name in ("num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim"):
        if not getattr(config, f"linear_{name}"):
            yield f"layer_types has 'linear_attention', which needs linear_{name}"
    heads, keys = config.linear_num_value_heads, config.linear_num_key_heads
    if keys and heads % keys:
        yield f"linear_num_value_heads {heads} is not a multiple of linear_num_key_heads {keys}"
    if config.linear_conv_kernel_dim < 2:
        yield f"linear_conv_kernel_dim {config.linear_conv_kernel_dim}, expected 2 or more"
    if config.num_kv_shared_layers:
        yield "num_kv_shared_layers is for layers that all attend, and layer_types has others"


def _of_state_spaces(config: BackboneConfig) -> Iterator[str]:
    for name in ("mamba_num_heads", "mamba_head_dim", "mamba_state_size"):
        if not getattr(config, name):
            yield f"{name} is 0, and layer_types has 'mamba' or 'hybrid'"
    heads, groups = config.mamba_num_heads, config.mamba_n_groups
    if heads % groups:
        yield f"mamba_num_heads {heads} is not a multiple of mamba_n_groups {groups}"
    if config.mamba_conv_kernel < 2:
        yield f"mamba_conv_kernel {config.mamba_conv_kernel}, expected 2 or more"
    if config.num_kv_shared_layers:
        yield "num_kv_shared_layers is for layers that only attend, and layer_types has others"


def _of_norms(config: BackboneConfig) -> Iterator[str]:
    if config.use_ffn_learnable_scales and config.post_ffn_norm:
        yield "use_ffn_learnable_scales and post_ffn_norm are two norms in one place"
    if not config.pre_norm and not (config.post_attention_norm and config.post_ffn_norm):
        yield "pre_norm is false, so post_attention_norm and post_ffn_norm must be true"
    if config.parallel_residual and (not config.pre_norm or _follows_branches(config)):
        yield (
            "parallel_residual adds the outputs of attention and feed-forward, without norms or "
            "gates"
        )
    if config.parallel_ffn_norm and not config.parallel_residual:
        yield "parallel_ffn_norm is for parallel_residual"
    if config.norm_type == "layer" and _follows_branches(config):
        yield "norm_type 'layer' is for norms before attention and feed-forward"
    if config.norm_bias and config.norm_type != "layer":
        yield "norm_bias is for norm_type 'layer'"
    if config.qk_norm_whole and not config.qk_norm_before_rope:
        yield "qk_norm_whole is a norm before the rotation, so it needs qk_norm_before_rope"
    if config.use_sub_norms and (config.num_experts or config.layer_types):
        yield "use_sub_norms is for layers that all attend, without experts or layer_types"
    if config.use_residual_gate and config.post_attention_norm:
        yield "use_residual_gate and post_attention_norm are two norms in one place"


def _follows_branches(config: BackboneConfig) -> bool:
    """Whether anything but a factor is between a branch and the residual stream."""
    return (
        config.post_attention_norm
        or config.post_ffn_norm
        or config.use_ffn_learnable_scales
        or config.use_residual_gate
    )


def _of_feed_forward(config: BackboneConfig) -> Iterator[str]:
    if config.no_feed_forward_layers:
        yield from _of_layers_without(config)
    if config.act_fn == "xielu" and (config.num_experts or config.per_layer_dim):
        yield "act_fn 'xielu' is for feed-forwards, not for experts or per_layer_dim"
    if config.activation_sparsity >= 1:
        yield f"activation_sparsity is {config.activation_sparsity}, expected less than 1"


def _of_layers_without(config: BackboneConfig) -> Iterator[str]:
    """What a layer has that is behind, or beside, its feed-forward."""
    last = max(config.no_feed_forward_layers)
    if last >= config.n_layers:
        yield f"no_feed_forward_layers names layer {last}, and n_layers is {config.n_layers}"
    if config.act_fn == "xielu" or config.use_sub_norms or config.parallel_residual:
        yield "no_feed_forward_layers is for layers whose parts follow one another"
    if not config.pre_norm or _follows_branches(config) or config.per_layer_dim:
        yield "no_feed_forward_layers is for layers with norms before their parts alone"


def _of_experts(config: BackboneConfig) -> Iterator[str]:
    if not config.feed_forward_gate and config.num_experts:
        yield "feed_forward_gate is false, and experts have one"
    if config.num_activated_experts > max(config.num_experts, 1):
        yield f"num_activated_experts {config.num_activated_experts} of {config.num_experts}"


def _of_vocabulary(config: BackboneConfig) -> Iterator[str]:
    for name in ("input_prune_map", "output_prune_map"):
        tokens = getattr(config, name)
        if tokens is not None and max(tokens.values()) >= config.vocab_size:
            yield f"{name} names token {max(tokens.values())}, vocab_size is {config.vocab_size}"
        if tokens is not None and len(tokens) == config.vocab_size and not _is_identity(tokens):
            # Nothing shows whether a table of that many rows is already in that order.
            yield f"{name} has all of {config.vocab_size} tokens in another order than their ids"


def _is_identity(tokens: dict[int, int]) -> bool:
    return all(row == token for row, token in tokens.items())


def _of_shared_keys(config: BackboneConfig) -> Iterator[str]:
    """Layers that read another's keys, and attend to other positions or rotate otherwise."""
    kv_source = config.n_layers - config.num_kv_shared_layers - 1
    if not config.num_kv_shared_layers:
        return
    kinds = config.layer_types
    if config.kv_shared_by_type:
        every = kinds or ()
        missing = sorted(set(every[kv_source + 1 :]).difference(every[: kv_source + 1]))
        if missing:
            yield (
                f"num_kv_shared_layers {config.num_kv_shared_layers} leaves no layer of "
                f"{missing[0]} with keys, which kv_shared_by_type lets others read"
            )
        return
    if config.sliding_window is not None and kinds is not None:
        for index in range(kv_source + 1, config.n_layers):
            if kinds[index] != kinds[kv_source]:
                yield (
                    f"num_kv_shared_layers {config.num_kv_shared_layers} lets layer {index}, of "
                    f"{kinds[index]}, read the keys of layer {kv_source}, of {kinds[kv_source]}; "
                    "expected layers of one kind"
                )
    interval = config.no_rope_layer_interval
    if config.attention_chunk_size is not None and interval is not None:
        without = config.n_layers // interval - kv_source // interval
        if 0 < without < config.n_layers - kv_source:
            yield (
                f"num_kv_shared_layers {config.num_kv_shared_layers} lets layers with and without "
                f"rotary embedding (no_rope_layer_interval {interval}) read the same keys, which "
                "attention_chunk_size limits for one kind alone"
            )
