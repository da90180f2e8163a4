"""What models that people ask for have and the backbone lacks, by what files call them."""

_STATE_SPACE = "layers of a state space (Mamba), whose state is kept beside the KV cache"
_WEIGHED_EXPERTS = "experts whose answers, not inputs, are weighed"
_LATENT_ATTENTION = "multi-head latent attention"
_DELTA_RULE = "layers of a gated delta rule, whose state is kept beside the KV cache"
_PER_LAYER_EMBEDDINGS = "an embedding for each layer, and a residual stream of several"
_BEFORE_LLAMA = "positions or a feed-forward that no Llama has"

# By config.json's model_type.
_MODEL_TYPES = {
    "apertus": "xIELU activations, whose slopes are learned",
    "bamba": _STATE_SPACE,
    "bitnet": "ternary weights, and norms inside attention and feed-forward",
    "bloom": _BEFORE_LLAMA,
    "cohere2_moe": _WEIGHED_EXPERTS,
    "deepseek_v2": f"{_LATENT_ATTENTION} and {_WEIGHED_EXPERTS}",
    "deepseek_v3": f"{_LATENT_ATTENTION} and {_WEIGHED_EXPERTS}",
    "ernie4_5_moe": _WEIGHED_EXPERTS,
    "falcon": _BEFORE_LLAMA,
    "falcon_h1": _STATE_SPACE,
    "gemma3n": _PER_LAYER_EMBEDDINGS,
    "gemma3n_text": _PER_LAYER_EMBEDDINGS,
    "gemma4": "an embedding for each layer, and heads of two widths",
    "gemma4_text": "an embedding for each layer, and heads of two widths",
    "glm4_moe": _WEIGHED_EXPERTS,
    "gpt2": _BEFORE_LLAMA,
    "gpt_neox": _BEFORE_LLAMA,
    "gpt_oss": f"a learned attention sink for each head, and {_WEIGHED_EXPERTS}",
    "granitemoe": _WEIGHED_EXPERTS,
    "hunyuan_v1_moe": _WEIGHED_EXPERTS,
    "jamba": _STATE_SPACE,
    "lfm2_moe": _WEIGHED_EXPERTS,
    "mamba": _STATE_SPACE,
    "mamba2": _STATE_SPACE,
    "minicpm3": _LATENT_ATTENTION,
    "mixtral": _WEIGHED_EXPERTS,
    "mllama": "layers that attend to an image",
    "nemotron_h": _STATE_SPACE,
    "olmo": "layer norms without weights, clipped queries, keys and values",
    "olmoe": _WEIGHED_EXPERTS,
    "opt": _BEFORE_LLAMA,
    "paligemma": "prompts whose tokens attend to each other in both directions",
    "phi": "an output layer with bias",
    "phimoe": _WEIGHED_EXPERTS,
    "qwen2_moe": _WEIGHED_EXPERTS,
    "qwen3_5": _DELTA_RULE,
    "qwen3_5_moe": f"{_DELTA_RULE}, and {_WEIGHED_EXPERTS}",
    "qwen3_moe": _WEIGHED_EXPERTS,
    "qwen3_vl_moe": _WEIGHED_EXPERTS,
    "qwen3_next": f"{_DELTA_RULE}, and {_WEIGHED_EXPERTS}",
    "recurrent_gemma": "recurrent layers, whose state is kept beside the KV cache",
}
# By a GGUF file's architecture, where that is not the model_type.
_ARCHITECTURES = {
    "deepseek2": "deepseek_v2",
    "gpt-oss": "gpt_oss",
    "lfm2moe": "lfm2_moe",
    "qwen35": "qwen3_5",
    "qwen3moe": "qwen3_moe",
    "qwen3next": "qwen3_next",
    "qwen3vlmoe": "qwen3_vl_moe",
}


def lacking(name: str) -> str:
    """A clause that says what the model_type or architecture `name` has that the backbone lacks;
    empty where that is not known."""
    has = _MODEL_TYPES.get(_ARCHITECTURES.get(name, name))
    return f" (it has {has}, and this backbone none)" if has else ""
