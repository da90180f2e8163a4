"""Predicts the memory that a running program needs."""

from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.layer_config import Layer
from quatrain.backbone.model import Backbone
from quatrain.export.metadata import longest_call
from quatrain.export.options import ExportOptions
from quatrain.export.plan.sizes import cache_bytes, constants_of_linears, cpu_table_bytes
from quatrain.export.xnnpack.layer_parts import PartedAttention, PartedFeedForward


def memory_of(backbone: Backbone, options: ExportOptions, constants: int) -> tuple[int, int]:
    """(all, caches) in bytes, for the longest call: of as many tokens as the context has, or as a
    Vulkan program takes at once.

    | | Vulkan, on the GPU | XNNPACK |
    |---|---|---|
    | weights | every constant | the linears', which XNNPACK packs anew; the file stays mapped |
    | keys and values | the whole context, or the window | the whole context, or a ring |
    | activations | what ExecuTorch plans for a layer | as much, and XNNPACK's workspace |
    | attention | two tensors of heads x tokens x context, which it makes | in blocks |
    | delta rules, state spaces | a chunk of tokens | queries and keys of all heads |
    | masked attention | three of heads x tokens x keys | in blocks |

    A table that a Vulkan program reads on the CPU stays mapped, and is not counted.
    Source: `SDPA.cpp` of ExecuTorch's Vulkan runtime for attention; the memory plan of exported
    programs for activations, which is exact for a plain Llama.
    """
    config = backbone.config
    itemsize = options.itemsize
    caches = cache_bytes(backbone, itemsize)
    vulkan = options.backend == "vulkan"
    tokens = longest_call(backbone, options.backend)
    layers = [config.layer(index) for index in range(config.n_layers)]
    head_dim = max(layer.head_dim for layer in layers)
    queries = config.n_heads * head_dim
    keys = max(layer.n_kv_heads * layer.head_dim for layer in layers)
    experts = config.expert_dim, config.shared_expert_dim
    widest = max(*(layer.hidden_dim for layer in layers), *experts, queries)
    activations = tokens * itemsize * (3 * widest + 2 * config.dim + head_dim)
    if not vulkan:
        recurrence = max(_numbers_of_recurrence(config, layer) for layer in layers)
        activations = max(activations, tokens * itemsize * recurrence)
        parts = {type(part) for part in backbone.modules()}
        # Sine and cosine of all channels; in the workspace also gate and up after the split.
        activations += tokens * itemsize * head_dim * (PartedAttention in parts)
        activations += tokens * itemsize * 2 * widest * (PartedFeedForward in parts)
        linears = sum(constants_of_linears(backbone).values())
        return linears + caches + activations, caches
    activations += tokens * itemsize * keys
    attention = config.n_heads * tokens * itemsize * _scores(config, tokens)
    constants -= cpu_table_bytes(backbone)
    return constants + caches + activations + attention, caches


def _numbers_of_recurrence(config: BackboneConfig, layer: Layer) -> int:
    """The numbers of each token that are in memory at once where a delta rule or a state space is
    computed: queries and keys of all heads, and five times what is as wide as their values."""
    if layer.delta:
        heads, keys = config.linear_num_value_heads, config.linear_key_head_dim
        values = config.linear_value_head_dim
    else:
        heads, keys = config.mamba_num_heads, config.mamba_state_size
        values = config.mamba_head_dim
    return heads * (2 * keys + 5 * values) + 2 * config.dim if layer.recurs else 0


def _scores(config: BackboneConfig, tokens: int) -> int:
    """The scores that are in memory at once of each query head and token of a call."""
    plain = masked = 0
    for index in range(config.n_layers):
        window = config.layer(index).attention_window
        keys = config.max_seq_len if window is None else window[1] - 1 + tokens
        if window is None and not config.changes_scores:
            plain = 2 * keys
        else:
            masked = max(masked, 3 * keys)
    return plain + masked
