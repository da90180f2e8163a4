"""What models that people ask for have and the backbone lacks, by what files call them."""

_STATE_SPACE = "state-space layers (Mamba), which keep a state beside the KV cache"
_GROUPED_EXPERTS = "experts that are chosen in groups"
_SINKS = "a learned attention sink for each head"
_BEFORE_LLAMA = "a positional encoding or a feed-forward that differs from Llama's"

# By config.json's model_type.
_MODEL_TYPES = {
    "bloom": _BEFORE_LLAMA,
    "cohere2_moe": "experts whose outputs are averaged with that of a shared one",
    "falcon": _BEFORE_LLAMA,
    "glm4_moe": _GROUPED_EXPERTS,
    "gpt2": _BEFORE_LLAMA,
    "gpt_neox": _BEFORE_LLAMA,
    "gpt_oss": f"{_SINKS}, and experts with biases",
    "granite_swa": _SINKS,
    "granitemoe_swa": _SINKS,
    "jamba": _STATE_SPACE,
    "mamba": _STATE_SPACE,
    "mamba2": _STATE_SPACE,
    "mllama": "layers that attend to an image",
    "nemotron_h": _STATE_SPACE,
    "opt": _BEFORE_LLAMA,
    "paligemma": "prompts whose tokens attend to each other in both directions",
    "phimoe": "a router that masks its logits after each choice",
    "qwen3_vl_moe": "experts whose matrices are stored transposed",
    "recurrent_gemma": "recurrent layers, which keep a state beside the KV cache",
}
# By a GGUF file's architecture, if that differs from the model_type.
_ARCHITECTURES = {
    "glm4moe": "glm4_moe",
    "gpt-oss": "gpt_oss",
    "qwen3vlmoe": "qwen3_vl_moe",
}


def lacking(name: str) -> str:
    """A clause that says what the model_type or architecture `name` has that the backbone lacks;
    empty if that is not known."""
    has = _MODEL_TYPES.get(_ARCHITECTURES.get(name, name))
    return f" (it has {has}, which is not implemented)" if has else ""
