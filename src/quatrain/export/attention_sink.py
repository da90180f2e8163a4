"""Attention sinks: attention only to the first tokens and a window of the last.

Xiao et al. (2023), "Efficient Streaming Language Models with Attention Sinks". Tokens keep their
own positions, so that what is cached stays as it is; a text ends where the context does.
"""

from dataclasses import replace

from quatrain.backbone.config import BackboneConfig
from quatrain.errors import InputError


def with_attention_sink(
    config: BackboneConfig, asked: tuple[int, int] | None, context: int
) -> BackboneConfig:
    """`config` whose layers attend to (sinks, window) of a context of `context` tokens; as it is
    where None is asked for.

    Raises:
        InputError: Where layers have a window, a chunk or a soft cap already, or hand their keys
            on, or the context is no longer than what is kept.
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
    if config.num_kv_shared_layers:
        return "layers use the keys of other layers (num_kv_shared_layers)"
    if config.layer_types is not None:
        return "layers are of several kinds (layer_types)"
    return None
