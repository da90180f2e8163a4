"""How many tokens one call of a Vulkan program takes at most."""

from quatrain.backbone.config import BackboneConfig

# The texels along any side of a texture that ExecuTorch's partitioner counts on in the third
# dimension everywhere (DEFAULT_TEXTURE_LIMITS of utils.py, ExecuTorch 1.5): where tokens lie.
LONGEST_SIDE = 2048


def longest_call(config: BackboneConfig) -> int:
    """The tokens of the longest call: ExecuTorch's runner feeds a longer prompt in parts.

    The partitioner takes every tensor of up to `LONGEST_SIDE` for a texture and forbids longer
    calls in silence (`extents_are_valid`). Where attention is masked, tokens lie side by side once
    for each KV head, and once for each query head of one.
    """
    layers = [config.layer(index) for index in range(config.n_layers)]
    masked = config.attn_logit_softcapping is not None or any(
        layer.attention_window for layer in layers
    )
    beside = max(config.n_kv_heads, config.n_heads // config.n_kv_heads) if masked else 1
    return min(config.max_seq_len, LONGEST_SIDE // beside)
