"""Attention sinks: attention only to the first tokens and a window of the last.

Xiao et al. (2023), "Efficient Streaming Language Models with Attention Sinks". Tokens keep their
own positions, so the cache is never recomputed; a text ends at the end of the context.
"""

from dataclasses import replace

from quatrain.backbone.config import BackboneConfig
from quatrain.errors import InputError


def with_attention_sink(
    config: BackboneConfig, asked: tuple[int, int] | None, context: int
) -> BackboneConfig:
    """`config` with layers that attend to (sinks, window) of a context of `context` tokens;
    unchanged if None is asked for.

    Raises:
        InputError: Layers already have a window, a chunk or a soft cap, or share their keys, or the
            context is not longer than the kept tokens.
    """
    if asked is None:
        return config
    sinks, window = asked
    problem = _problem(config)
    if problem is not None:
        raise InputError(f"--attention-sink: {problem}; leave it out")
    if context <= sinks + window:
        raise InputError(
            f"--attention-sink {sinks},{window} keeps as many tokens as the context has, "
            f"{context}; leave it out, or ask for a longer --max-seq-len"
        )
    return replace(config, sliding_window=window, attention_sinks=sinks)


def _problem(config: BackboneConfig) -> str | None:
    if config.sliding_window is not None:
        return f"layers already have a sliding window, of {config.sliding_window} tokens"
    if config.attention_chunk_size is not None:
        return f"layers attend to chunks of {config.attention_chunk_size} tokens"
    if config.attn_logit_softcapping is not None:
        return f"attention has a soft cap of {config.attn_logit_softcapping:g}"
    if config.use_sink_scores:
        return "attention has a learned sink for each head"
    if config.num_kv_shared_layers:
        return "layers use the keys of other layers (num_kv_shared_layers)"
    if config.layer_types is not None:
        return "layers are of several kinds (layer_types)"
    return None
