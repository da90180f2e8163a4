"""The names and shapes of a backbone's tensors as a checkpoint holds them, in Meta's naming; those
in one dimension, and what stays in floating point, by `vector_shapes`.

layers.{i}.attention.wq.weight              [n_heads * head_dim, dim]
layers.{i}.attention.{wk,wv}.weight         [n_kv_heads * head_dim, dim], unless it reads another's;
                                            both numbers are those of the kind of layer
layers.{i}.attention.wo.weight              [dim, n_heads * head_dim]
layers.{i}.attention.og.weight              [n_heads * head_dim, dim], with use_attn_o_gate
layers.{i}.attention.{wq,wk,wv}.bias        with attention_qkv_bias
layers.{i}.attention.wo.bias                with attention_output_bias
layers.{i}.attention.{q,k}_norm_fn.weight   [head_dim], with use_qk_norm and qk_norm_affine; with
                                            qk_norm_whole as wide as the projection
layers.{i}.attention.attend.sinks           [n_heads], with use_sink_scores
  with kv_lora_rank, H heads, in place of these:
layers.{i}.attention.wq.weight              [H * head_dim, dim]; with q_lora_rank instead
layers.{i}.attention.{wq_a,wq_b}.weight     [q_lora_rank, dim], [H * head_dim, q_lora_rank]
layers.{i}.attention.wkv_a.weight           [kv_lora_rank + qk_rope_head_dim, dim]
layers.{i}.attention.wk_b.weight            [H, qk_nope_head_dim, kv_lora_rank], floating point
layers.{i}.attention.wv_b.weight            [H, kv_lora_rank, v_head_dim], floating point
layers.{i}.attention.wo.weight              [dim, H * v_head_dim]
layers.{i}.attention.{q_norm,kv_norm}.weight   [q_lora_rank], [kv_lora_rank]
  in a layer that layer_types calls conv, in place of attention:
layers.{i}.conv.{B_proj,C_proj,x_proj,out_proj}.weight   [dim, dim]
layers.{i}.conv.conv.weight                 [dim, 1, conv_L_cache], floating point
  in a layer that layer_types calls linear_attention, H value heads, in place of attention:
layers.{i}.attention.in_proj_qkv.weight     [channels, dim]: queries, keys, values
layers.{i}.attention.in_proj_z.weight       [H * linear_value_head_dim, dim]
layers.{i}.attention.in_proj_{a,b}.weight   [H, dim], floating point
layers.{i}.attention.conv1d.weight          [channels, 1, linear_conv_kernel_dim], floating point
layers.{i}.attention.{A_log,dt_bias}        [H]
layers.{i}.attention.norm.weight            [linear_value_head_dim]
layers.{i}.attention.out_proj.weight        [dim, H * linear_value_head_dim]
  in a layer that layer_types calls mamba, in place of attention, or hybrid, besides, H heads:
layers.{i}.mamba.in_proj_{z,xBC}.weight     [H * mamba_head_dim, dim], [channels, dim]: x, B, C
layers.{i}.mamba.in_proj_dt.weight          [H, dim], floating point
layers.{i}.mamba.in_proj_{z,xBC,dt}.bias    with mamba_in_bias
layers.{i}.mamba.conv1d.weight              [channels, 1, mamba_conv_kernel], floating point
layers.{i}.mamba.conv1d.bias                [channels], with mamba_conv_bias
layers.{i}.mamba.{A_log,D,dt_bias}          [H]
layers.{i}.mamba.norm.weight                [H * mamba_head_dim], unless mamba_norm is none
layers.{i}.mamba.out_proj.{weight,bias}     [dim, H * mamba_head_dim], [dim] with mamba_out_bias
layers.{i}.feed_forward.{w1,w3}.weight      [hidden_dim, dim] (gate, up); w1 alone without
                                            feed_forward_gate
layers.{i}.feed_forward.w2.weight           [dim, hidden_dim] (down)
layers.{i}.feed_forward.{w1,w2,w3}.bias     with feed_forward_bias
layers.{i}.attention.sub_norm.weight        [n_heads * head_dim], with use_sub_norms
layers.{i}.feed_forward.sub_norm.weight     [hidden_dim], with use_sub_norms
layers.{i}.feed_forward.activate.{alpha_p,alpha_n,beta}   [1], with act_fn xielu
layers.{i}.per_layer.{gate,projection}.weight  [per_layer_dim, dim], [dim, per_layer_dim]
layers.{i}.per_layer.norm.weight            [dim]
layers.{i}.layer_scalar.weight              [1], with use_layer_scalar
  with altup_num_inputs S above 1, floating point:
layers.{i}.alt_up.{router,predict,correct}.weight   [S, dim], [S * S, S], [S, S]
layers.{i}.alt_up.{router_norm,scale}.weight        [dim]
alt_up.{projections,unembed}.{s}.weight     [dim, dim], s from 0 to S - 2, quantized
layers.{i}.laurel.{left,right}.weight       [laurel_rank, dim], [dim, laurel_rank]
layers.{i}.laurel.norm.weight               [dim]
  in a mixture of experts, in place of these three:
layers.{i}.feed_forward.experts.{w1,w3}.weight   [num_experts, expert_dim, dim]
layers.{i}.feed_forward.experts.w2.weight        [num_experts, dim, expert_dim]
layers.{i}.feed_forward.shared_expert.{w1,w2,w3}.weight   the same without [num_experts], of its
                                            own width, with use_shared_expert
layers.{i}.feed_forward.shared_gate.weight  [dim], with use_shared_expert_gate
layers.{i}.feed_forward.router.weight       [num_experts, dim], floating point
layers.{i}.feed_forward.expert_bias.bias    [num_experts], with use_expert_bias
layers.{i}.{attention_norm,ffn_norm}.weight [dim], with pre_norm; with parallel_residual the first
                                            alone, unless there is parallel_ffn_norm
layers.{i}.{attention_norm,ffn_norm}.bias   [dim], with norm_bias; so has norm
layers.{i}.post_attention_norm.weight       [dim], with post_attention_norm
layers.{i}.post_ffn_norm.weight             [dim], with post_ffn_norm or use_ffn_learnable_scales
layers.{i}.{add_attn,add_ffn}.gate          [dim], with use_residual_gate
norm.weight                                 [dim]
per_layer.embeddings.weight                 [vocab_size, n_layers * per_layer_dim]
per_layer.projection.weight                 [n_layers * per_layer_dim, dim]
per_layer.norm.weight                       [per_layer_dim]
positions.weight                            [learned_positions, dim], floating point
output_bias.bias                            [vocab_size], with output_bias, whole also where
                                            there is an output_prune_map
output_intermediate.weight                  [output_linear_intermediate_dim, dim]
tok_embeddings.weight                       [vocab_size, dim], or the rows of input_prune_map
output.weight                               [vocab_size, dim or the intermediate dim], or the
                                            rows of output_prune_map; absent where it is tied
"""

from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.layer_config import Layer
from quatrain.backbone.pruned_vocabulary import embedding_rows, output_rows


def linear_shapes(config: BackboneConfig) -> dict[str, tuple[int, ...]]:
    """Each quantized linear but the output, by module name: [N, K], or [experts, N, K]."""
    shapes = {
        f"layers.{index}.{name}": shape
        for index in range(config.n_layers)
        for name, shape in _layer_linears(config, config.layer(index)).items()
    }
    if config.apply_output and config.output_linear_intermediate_dim:
        shapes["output_intermediate"] = (config.output_linear_intermediate_dim, config.dim)
    if config.per_layer_dim:
        shapes["per_layer.projection"] = (config.n_layers * config.per_layer_dim, config.dim)
    for index in range(config.altup_num_inputs - 1):
        for name in ("projections", "unembed"):
            shapes[f"alt_up.{name}.{index}"] = (config.dim, config.dim)
    return shapes


def embedding_shapes(config: BackboneConfig) -> list[tuple[int, int]]:
    """The shapes that `tok_embeddings.weight` may have: whole, or pruned already."""
    rows = dict.fromkeys((config.vocab_size, embedding_rows(config)))
    return [(count, config.dim) for count in rows]


def per_layer_shapes(config: BackboneConfig) -> list[tuple[int, int]]:
    """The shape that `per_layer.embeddings.weight` may have; none if there is no such table."""
    width = config.n_layers * config.per_layer_dim
    return [(config.vocab_size, width)] if config.per_layer_dim else []


def output_shapes(config: BackboneConfig) -> list[tuple[int, int]]:
    """The shapes that `output.weight` may have: whole, or pruned already."""
    width = config.output_linear_intermediate_dim or config.dim
    return [(count, width) for count in dict.fromkeys((config.vocab_size, output_rows(config)))]


def _layer_linears(config: BackboneConfig, layer: Layer) -> dict[str, tuple[int, ...]]:
    shapes = _mixer(config, layer)
    if config.per_layer_dim:
        shapes["per_layer.gate"] = (config.per_layer_dim, config.dim)
        shapes["per_layer.projection"] = (config.dim, config.per_layer_dim)
    if config.laurel_rank:
        shapes["laurel.left"] = (config.laurel_rank, config.dim)
        shapes["laurel.right"] = (config.dim, config.laurel_rank)
    if not layer.feed_forward:
        return shapes
    if not layer.moe:
        dense = _feed_forward("feed_forward", config.dim, layer.hidden_dim)
        if not config.feed_forward_gate:
            del dense["feed_forward.w3"]
        return shapes | dense
    one = _feed_forward("feed_forward.experts", config.dim, config.expert_dim)
    shapes |= {name: (config.num_experts, *shape) for name, shape in one.items()}
    if config.use_shared_expert:
        width = config.shared_expert_dim
        shapes |= _feed_forward("feed_forward.shared_expert", config.dim, width)
    return shapes


def _mixer(config: BackboneConfig, layer: Layer) -> dict[str, tuple[int, ...]]:
    if layer.delta:
        return _delta_rule(config)
    if layer.conv:
        return _convolution(config)
    attention = _latent_attention(config) if layer.latent else _attention(config, layer)
    shapes = attention if layer.attends else {}
    return shapes | (_state_space(config) if layer.mamba else {})


def _attention(config: BackboneConfig, layer: Layer) -> dict[str, tuple[int, ...]]:
    queries, keys = config.n_heads * layer.head_dim, layer.n_kv_heads * layer.head_dim
    shapes: dict[str, tuple[int, ...]] = {"attention.wq": (queries, config.dim)}
    if layer.kv_source is None:
        shapes["attention.wk"] = shapes["attention.wv"] = (keys, config.dim)
    shapes["attention.wo"] = (config.dim, queries)
    if config.use_attn_o_gate:
        shapes["attention.og"] = (queries, config.dim)
    return shapes


def _latent_attention(config: BackboneConfig) -> dict[str, tuple[int, ...]]:
    dim, queries = config.dim, config.n_heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {"attention.wq": (queries, dim)}
    if config.q_lora_rank:
        shapes = {
            "attention.wq_a": (config.q_lora_rank, dim),
            "attention.wq_b": (queries, config.q_lora_rank),
        }
    shapes["attention.wkv_a"] = (config.kv_lora_rank + config.qk_rope_head_dim, dim)
    return shapes | {"attention.wo": (dim, config.n_heads * config.v_head_dim)}


def _convolution(config: BackboneConfig) -> dict[str, tuple[int, ...]]:
    names = ("B_proj", "C_proj", "x_proj", "out_proj")
    return {f"conv.{name}": (config.dim, config.dim) for name in names}


def _delta_rule(config: BackboneConfig) -> dict[str, tuple[int, ...]]:
    values = config.linear_num_value_heads * config.linear_value_head_dim
    return {
        "attention.in_proj_qkv": (config.delta_channels, config.dim),
        "attention.in_proj_z": (values, config.dim),
        "attention.out_proj": (config.dim, values),
    }


def _state_space(config: BackboneConfig) -> dict[str, tuple[int, ...]]:
    return {
        "mamba.in_proj_z": (config.mamba_dim, config.dim),
        "mamba.in_proj_xBC": (config.mamba_channels, config.dim),
        "mamba.out_proj": (config.dim, config.mamba_dim),
    }


def _feed_forward(path: str, dim: int, hidden_dim: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{path}.w1": (hidden_dim, dim),
        f"{path}.w2": (dim, hidden_dim),
        f"{path}.w3": (hidden_dim, dim),
    }
