"""The shape of a backbone. `backbone.params` reads it from a `params.json`.

Field names are those of Meta's `params.json` and of ExecuTorch's `ModelArgs`, so one file
serves Quatrain and ExecuTorch's own exporter.
"""

from dataclasses import dataclass
from typing import Literal

from quatrain.backbone.layer_config import Layer, layer_of

LayerType = Literal[
    "full_attention", "sliding_attention", "conv", "linear_attention", "mamba", "hybrid"
]


@dataclass(frozen=True)
class BackboneConfig:
    """A Llama-family decoder. Sizes are element counts; the defaults are a plain Llama's."""

    dim: int
    n_layers: int
    n_heads: int
    vocab_size: int
    n_kv_heads: int
    head_dim: int
    hidden_dim: int
    norm_eps: float = 1e-5
    norm_type: Literal["rms", "layer"] = "rms"  # of the residual stream; of heads always rms
    norm_bias: bool = False  # of layer norms
    max_seq_len: int = 2048
    # Of a program, and of no model: the most tokens of a call; None is the context.
    prefill_chunk_size: int | None = None

    # Rotary embedding: `use_hf_rope=False` rotates neighbouring pairs (Meta's layout, Q/K rows
    # in that order), `True` rotates halves (Hugging Face's layout), of the first
    # `partial_rotary_factor` of each head.
    rope_theta: float = 10000.0
    use_hf_rope: bool = False
    partial_rotary_factor: float = 1.0
    # Llama 3.1's frequency scaling.
    use_scaled_rope: bool = False
    rope_scale_factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192
    # LongRoPE, and YaRN as one whose divisors are the same for both: a divisor per plane, and
    # the factor on both tables, which a params.json states or leaves to its
    # max_position_embeddings.
    rope_scaling_short_factor: tuple[float, ...] | None = None
    rope_scaling_long_factor: tuple[float, ...] | None = None
    rope_scaling_attention_factor: float = 1.0
    rope_linear_factor: float = 1.0  # positions count as if divided by it
    local_rope_theta: float | None = None  # of sliding-window layers, unscaled
    no_rope_layer_interval: int | None = None  # every such layer goes without
    global_rope: bool = True  # of layers without a window; of others in any case
    # The rows of a table of positions that is added to embeddings (GPT-2); 0: there is none.
    learned_positions: int = 0
    # Of layers without a window (Gemma 4): the width of their heads, how many of them are keys' and
    # values', and the part of all planes that turns, the first ones, as fast as they do where all
    # turn.
    global_head_dim: int | None = None
    n_global_kv_heads: int | None = None
    global_rotary_planes: float = 1.0

    # Attention.
    attention_qkv_bias: bool = False
    attention_output_bias: bool = False
    use_qk_norm: bool = False
    qk_norm_before_rope: bool = True  # a params.json that leaves it out means False
    qk_norm_affine: bool = True
    qk_norm_whole: bool = False  # over all heads together, before the rotation
    qk_norm_without_rope: bool = True  # also where a layer has no rotary embedding
    scale_query_by: float = 1.0  # after its norm
    attention_multiplier: float | None = None  # in place of 1 / sqrt(head_dim)
    attn_logit_softcapping: float | None = None
    # A learned score of each head, beside those of the context, that has no value (gpt-oss).
    use_sink_scores: bool = False
    use_attn_o_norm: bool = False
    use_attn_o_gate: bool = False
    # RMS norms, with weights, of what wo and w2 read (BitNet).
    use_sub_norms: bool = False
    use_v_norm: bool = False  # a scaleless RMS norm of each value head
    # Multi-head latent attention (DeepSeek V2): the widths of the latent vector of keys and values,
    # and of queries' if there is one, and a head's channels without and with rotation, and values.
    kv_lora_rank: int = 0
    q_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0
    num_kv_shared_layers: int = 0
    # Of layers with and without a window each reads the last of its own kind before them.
    kv_shared_by_type: bool = False
    # `sliding_window` is that of the layers that `layer_types` calls so (all, if it is absent).
    sliding_window: int | None = None
    attention_sinks: int = 0  # first positions that layers with a window see too (StreamingLLM)
    layer_types: tuple[LayerType, ...] | None = None
    conv_L_cache: int = 3  # taps of the convolutions of the layers called "conv"
    # Of the layers called "linear_attention" (Qwen 3.5): those of their convolutions, and heads.
    linear_conv_kernel_dim: int = 4
    linear_num_key_heads: int = 0
    linear_num_value_heads: int = 0
    linear_key_head_dim: int = 0
    linear_value_head_dim: int = 0
    # Of the state spaces (Mamba-2) in layers called "mamba", or beside attention in those called
    # "hybrid": each of the groups of B and C is for as many heads, which follow on each other.
    mamba_num_heads: int = 0
    mamba_head_dim: int = 0
    mamba_state_size: int = 0
    mamba_n_groups: int = 1
    mamba_conv_kernel: int = 4
    mamba_conv_bias: bool = True
    mamba_in_bias: bool = False
    mamba_out_bias: bool = False
    # An RMS norm of each group, behind the gate or before it.
    mamba_norm: Literal["after_gate", "before_gate", "none"] = "after_gate"
    # Llama 4: layers with rotary embedding see their own chunk only; the queries of those
    # without grow with the position.
    attention_chunk_size: int | None = None
    attn_temperature_tuning: bool = False
    attn_temperature_with_rope: bool = False  # in every layer, from position 0 (Ministral 3)
    floor_scale: int = 8192
    attn_scale: float = 0.1

    # Feed-forward and residual stream.
    # "xielu" has learned numbers in each layer.
    act_fn: Literal["silu", "gelu", "gelu_approx", "relu", "relu2", "xielu"] = "silu"
    feed_forward_gate: bool = True  # without, there is no w3
    feed_forward_bias: bool = False  # of w1, w2 and w3, not of experts
    no_feed_forward_layers: tuple[int, ...] = ()  # layers without (Nemotron-H), from 0 on
    double_wide_shared_ffn: bool = False  # of layers that read another's keys
    # The part of a feed-forward's gates that is set to 0, computed as for a normal distribution, in
    # the first `num_sparse_layers` (Gemma 3n).
    activation_sparsity: float = 0.0
    num_sparse_layers: int = 0
    use_spin_quant: bool = False  # a Hadamard rotation before each w2
    pre_norm: bool = True  # norms of what attention and feed-forward read
    parallel_residual: bool = False  # both read the same norm of the stream
    parallel_ffn_norm: bool = False  # with it feed-forward reads another (GPT-NeoX)
    post_attention_norm: bool = False
    post_ffn_norm: bool = False
    use_ffn_learnable_scales: bool = False
    use_residual_gate: bool = False
    residual_multiplier: float = 1.0
    # An embedding for each layer, of this width, which joins the stream at the layer's end.
    per_layer_dim: int = 0
    altup_num_inputs: int = 1  # residual streams, of which the first goes through layers
    laurel_rank: int = 0  # of a learned augmented residual beside attention
    use_layer_scalar: bool = False  # the output of each layer is multiplied by a number
    # Mixture of experts in every `interleave_moe_layer_step`-th layer, if there are experts, except
    # in the first `num_dense_layers`.
    num_experts: int = 0
    num_activated_experts: int = 1
    interleave_moe_layer_step: int = 1
    num_dense_layers: int = 0
    moe_hidden_dim: int | None = None  # hidden_dim unless given
    use_shared_expert: bool = True  # of Llama 4: computed for every token, besides
    use_shared_expert_gate: bool = False  # a number for each token that weighs what it answers
    shared_hidden_dim: int | None = None  # its hidden width, an expert's unless given
    router_scores: Literal["sigmoid", "softmax"] = "sigmoid"  # of a router's logits
    use_expert_bias: bool = False  # experts are picked by scores with a bias, weighed without
    norm_topk_prob: bool = False  # the scores of the experts that are picked are made to sum to 1
    routed_scaling_factor: float = 1.0  # what these are multiplied by
    weigh_experts: Literal["inputs", "outputs"] = "inputs"  # what is multiplied by the scores

    # Embedding and output. A pruning map is from row to token id.
    apply_embedding: bool = True
    apply_output: bool = True
    normalize_tok_embeddings: bool = False
    embedding_scale_factor: float = 1.0
    output_linear_intermediate_dim: int = 0
    output_bias: bool = False  # of logits, before anything else is done to them
    output_soft_cap_temp: float | None = None
    logits_scaling: float = 1.0  # what logits are divided by
    input_prune_map: dict[int, int] | None = None  # row to token id, in the order of the rows
    output_prune_map: dict[int, int] | None = None

    @property
    def expert_dim(self) -> int:
        """The hidden width of an expert."""
        return self.moe_hidden_dim or self.hidden_dim

    @property
    def shared_expert_dim(self) -> int:
        """The hidden width of the shared expert."""
        return self.shared_hidden_dim or self.expert_dim

    @property
    def delta_channels(self) -> int:
        """What the convolution of a delta rule reads: queries, keys and values."""
        keys = self.linear_num_key_heads * self.linear_key_head_dim
        return 2 * keys + self.linear_num_value_heads * self.linear_value_head_dim

    @property
    def mamba_dim(self) -> int:
        """The channels of all heads of a state space."""
        return self.mamba_num_heads * self.mamba_head_dim

    @property
    def mamba_channels(self) -> int:
        """What the convolution of a state space reads: x, B and C."""
        return self.mamba_dim + 2 * self.mamba_n_groups * self.mamba_state_size

    @property
    def longrope(self) -> Literal["short", "long"] | None:
        """The divisors that rotations have, of LongRoPE's (Ding et al., 2024) for contexts up to
        that of pretraining and for longer ones; one program serves one context."""
        if self.rope_scaling_long_factor is None:
            return None
        return "long" if self.max_seq_len > self.original_max_position_embeddings else "short"

    @property
    def changes_scores(self) -> bool:
        """Whether attention has a soft cap or sinks, which no operator of attention computes."""
        return self.attn_logit_softcapping is not None or self.use_sink_scores

    @property
    def rotary_dim(self) -> int:
        """The channels of a head that rotate, but for `partial_rotary_factor`."""
        return self.qk_rope_head_dim if self.kv_lora_rank else self.head_dim

    def layer(self, index: int) -> Layer:
        """What is particular to layer `index`."""
        return layer_of(self, index)
