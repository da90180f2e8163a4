"""The names and shapes of a backbone's tensors in one dimension, and of those that stay in floating
point: what `tensor_shapes` lists and does not quantize."""

from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.layer_config import Layer

Shapes = dict[str, tuple[int, ...]]


def vector_shapes(config: BackboneConfig) -> Shapes:
    """Each tensor that stays in floating point, by name: norms, biases, gates and routers."""
    shapes = {
        f"layers.{index}.{name}": shape
        for index in range(config.n_layers)
        for name, shape in _layer_vectors(config, config.layer(index)).items()
    }
    if config.per_layer_dim:
        shapes["per_layer.norm.weight"] = (config.per_layer_dim,)
    if config.learned_positions:
        shapes["positions.weight"] = (config.learned_positions, config.dim)
    if config.output_bias and config.apply_output:
        shapes["output_bias.bias"] = (config.vocab_size,)
    return shapes | _norm("norm", config)


def _layer_vectors(config: BackboneConfig, layer: Layer) -> Shapes:
    stream = (config.dim,)
    shapes = _norms_before(config, layer) | _mixer(config, layer)
    if config.use_sub_norms:
        shapes["attention.sub_norm.weight"] = (config.n_heads * layer.head_dim,)
        shapes["feed_forward.sub_norm.weight"] = (layer.hidden_dim,)
    if config.feed_forward_bias and layer.feed_forward and not layer.moe:
        shapes |= _feed_forward_biases(config, layer)
    if config.act_fn == "xielu":
        slopes = ("alpha_p", "alpha_n", "beta")
        shapes |= dict.fromkeys((f"feed_forward.activate.{name}" for name in slopes), (1,))
    if layer.qk_norm and config.qk_norm_affine:
        shapes |= _head_norms(config, layer)
    if config.post_attention_norm:
        shapes["post_attention_norm.weight"] = stream
    if config.post_ffn_norm or config.use_ffn_learnable_scales:
        shapes["post_ffn_norm.weight"] = stream
    if config.use_residual_gate:
        shapes["add_attn.gate"] = shapes["add_ffn.gate"] = stream
    if config.per_layer_dim:
        shapes["per_layer.norm.weight"] = stream
    if config.laurel_rank:
        shapes["laurel.norm.weight"] = stream
    if config.altup_num_inputs > 1:
        shapes |= _alt_up(config)
    if config.use_layer_scalar:
        shapes["layer_scalar.weight"] = (1,)
    if layer.moe:
        shapes |= _mixture(config)
    return shapes


def _norms_before(config: BackboneConfig, layer: Layer) -> Shapes:
    if not config.pre_norm:
        return {}
    one_norm = config.parallel_residual and not config.parallel_ffn_norm
    second = layer.feed_forward and not one_norm
    return _norm("attention_norm", config) | (_norm("ffn_norm", config) if second else {})


def _mixer(config: BackboneConfig, layer: Layer) -> Shapes:
    if layer.conv:
        return {"conv.conv.weight": (config.dim, 1, config.conv_L_cache)}
    if layer.latent:
        return _latent_attention(config)
    if layer.delta:
        return _delta_vectors(config)
    shapes = _attention_biases(config, layer) if layer.attends else {}
    if config.use_sink_scores and layer.attends and layer.kv_source is None:
        shapes["attention.attend.sinks"] = (config.n_heads,)
    return shapes | (_state_space_vectors(config) if layer.mamba else {})


def _latent_attention(config: BackboneConfig) -> Shapes:
    heads, latent = config.n_heads, config.kv_lora_rank
    shapes: Shapes = {
        "attention.kv_norm.weight": (latent,),
        "attention.wk_b.weight": (heads, config.qk_nope_head_dim, latent),
        "attention.wv_b.weight": (heads, latent, config.v_head_dim),
    }
    if config.q_lora_rank:
        shapes["attention.q_norm.weight"] = (config.q_lora_rank,)
    return shapes


def _feed_forward_biases(config: BackboneConfig, layer: Layer) -> Shapes:
    names = ("w1", "w3") if config.feed_forward_gate else ("w1",)
    hidden = {f"feed_forward.{name}.bias": (layer.hidden_dim,) for name in names}
    return {**hidden, "feed_forward.w2.bias": (config.dim,)}


def _head_norms(config: BackboneConfig, layer: Layer) -> Shapes:
    """Of queries and keys."""
    whole = config.qk_norm_whole
    queries, keys = (config.n_heads, layer.n_kv_heads) if whole else (1, 1)
    shapes = {"attention.q_norm_fn.weight": (queries * layer.head_dim,)}
    if layer.kv_source is None:
        shapes["attention.k_norm_fn.weight"] = (keys * layer.head_dim,)
    return shapes


def _mixture(config: BackboneConfig) -> Shapes:
    shapes: Shapes = {"feed_forward.router.weight": (config.num_experts, config.dim)}
    if config.use_shared_expert and config.use_shared_expert_gate:
        shapes["feed_forward.shared_gate.weight"] = (config.dim,)
    if config.use_expert_bias:
        shapes["feed_forward.expert_bias.bias"] = (config.num_experts,)
    return shapes


def _delta_vectors(config: BackboneConfig) -> Shapes:
    heads = config.linear_num_value_heads
    return {
        "attention.in_proj_a.weight": (heads, config.dim),
        "attention.in_proj_b.weight": (heads, config.dim),
        "attention.conv1d.weight": (config.delta_channels, 1, config.linear_conv_kernel_dim),
        "attention.A_log": (heads,),
        "attention.dt_bias": (heads,),
        "attention.norm.weight": (config.linear_value_head_dim,),
    }


def _state_space_vectors(config: BackboneConfig) -> Shapes:
    heads, inner, channels = (config.mamba_num_heads,), (config.mamba_dim,), config.mamba_channels
    shapes: Shapes = {
        "mamba.in_proj_dt.weight": (*heads, config.dim),
        "mamba.conv1d.weight": (channels, 1, config.mamba_conv_kernel),
        "mamba.A_log": heads,
        "mamba.D": heads,
        "mamba.dt_bias": heads,
    }
    if config.mamba_conv_bias:
        shapes["mamba.conv1d.bias"] = (channels,)
    if config.mamba_norm != "none":
        shapes["mamba.norm.weight"] = inner
    if config.mamba_in_bias:
        rows = {"z": inner, "xBC": (channels,), "dt": heads}
        shapes |= {f"mamba.in_proj_{part}.bias": shape for part, shape in rows.items()}
    if config.mamba_out_bias:
        shapes["mamba.out_proj.bias"] = (config.dim,)
    return shapes


def _attention_biases(config: BackboneConfig, layer: Layer) -> Shapes:
    shapes: Shapes = {}
    if config.attention_qkv_bias:
        shapes["attention.wq.bias"] = (config.n_heads * layer.head_dim,)
        if layer.kv_source is None:
            keys = (layer.n_kv_heads * layer.head_dim,)
            shapes["attention.wk.bias"] = shapes["attention.wv.bias"] = keys
    if config.attention_output_bias:
        shapes["attention.wo.bias"] = (config.dim,)
    return shapes


def _alt_up(config: BackboneConfig) -> Shapes:
    streams, dim = config.altup_num_inputs, config.dim
    return {
        "alt_up.router.weight": (streams, dim),
        "alt_up.router_norm.weight": (dim,),
        "alt_up.predict.weight": (streams * streams, streams),
        "alt_up.correct.weight": (streams, streams),
        "alt_up.scale.weight": (dim,),
    }


def _norm(name: str, config: BackboneConfig) -> Shapes:
    """A norm of the residual stream."""
    parts = ("weight", "bias") if config.norm_bias else ("weight",)
    return {f"{name}.{part}": (config.dim,) for part in parts}
