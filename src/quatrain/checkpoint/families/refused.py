"""What models that people ask for have and the backbone lacks, by what files call them."""

_FIRST_MAMBA = "state spaces of the first Mamba"
_GROUPED_EXPERTS = "experts that are chosen in groups"
_BEFORE_LLAMA = "a positional encoding or a feed-forward that differs from Llama's"

# By config.json's model_type.
_MODEL_TYPES = {
    "apertus1p5": "an output layer for fewer tokens than the embedding",
    "bloom": _BEFORE_LLAMA,
    "cohere2_moe": "experts whose outputs are averaged with that of a shared one",
    "falcon": _BEFORE_LLAMA,
    "falcon_mamba": _FIRST_MAMBA,
    "glm4_moe": _GROUPED_EXPERTS,
    "gpt_oss": "experts with biases",
    "jamba": _FIRST_MAMBA,
    "mamba": _FIRST_MAMBA,
    "mllama": "layers that attend to an image",
    "paligemma": "prompts whose tokens attend to each other in both directions",
    "phimoe": "a router that masks its logits after each choice",
    "qwen3_vl_moe": "experts whose matrices are stored transposed",
    "recurrent_gemma": "recurrent layers, which keep a state beside the KV cache",
    "unlimited_ocr": "attention to a window and to all of the prompt",
    "voxtral_realtime": "norms that depend on a delay",
    "zamba": _FIRST_MAMBA,
    "zamba2": "layers that share their weights",
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
