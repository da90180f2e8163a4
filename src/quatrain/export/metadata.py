"""The metadata of a program: its constant methods."""

from typing import Any

from quatrain.backbone.model import Backbone
from quatrain.export.options import Backend
from quatrain.export.vulkan.call_length import longest_call as longest_vulkan_call
from quatrain.export.xnnpack.int8_kv_cache import Int8KvCacheSdpa
from quatrain.export.xnnpack.ring_cache import keeps_rings
from quatrain.export.xnnpack.ring_cache import longest_call as longest_xnnpack_call
from quatrain.tokenizer.end_tokens import token_ids


def longest_call(backbone: Backbone, backend: Backend) -> int:
    """The tokens of the longest call of the program of `backbone`, whose parts are operators
    already."""
    if backend == "vulkan":
        return longest_vulkan_call(backbone.config)
    return longest_xnnpack_call(backbone)


def metadata_methods(
    backbone: Backbone, params: dict[str, Any], backend: Backend
) -> dict[str, Any]:
    """The constant methods by which ExecuTorch's `TextLLMRunner` learns about a program.

    Source: `extension/llm/runner/constants.h` and `llm_runner_helper.cpp` in ExecuTorch.
    """
    config = backbone.config
    eos_ids = token_ids(params.get("eos_idx"))
    methods: dict[str, Any] = {
        "get_max_seq_len": longest_call(backbone, backend),
        "get_max_context_len": config.max_seq_len,
        "get_vocab_size": config.vocab_size,
        "get_n_layers": config.n_layers,
        "use_kv_cache": True,
        "use_sdpa_with_kv_cache": True,
        "enable_dynamic_shape": True,
        "quatrain_embedding_input": backbone.tok_embeddings is None,
        "quatrain_hidden_output": backbone.output is None,
    }
    if not backbone.rewinds or keeps_rings(backbone):
        methods["quatrain_keeps_last_inputs"] = True
    if config.attention_sinks and config.sliding_window:
        methods["quatrain_attention_sink"] = [config.attention_sinks, config.sliding_window]
    if any(isinstance(part, Int8KvCacheSdpa) for part in backbone.modules()):
        methods["quatrain_int8_kv_cache"] = True
    if params.get("bos_idx") is not None:
        methods["get_bos_id"] = params["bos_idx"]
    if eos_ids:
        methods["get_eos_ids"] = eos_ids
    return methods
