"""Every family of the hub against its model in transformers, in floating point."""

import pytest
import torch
from tests.support.peers import (
    TOLERANCE,
    backbone_of,
    parity_error,
    random_model,
    random_tokens,
    relative_error,
    saved,
)

from quatrain.checkpoint import open_float_model
from quatrain.errors import InputError

LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75,
    "short_factor": [1.0, 1.1, 1.3, 1.6, 2.0, 2.5], "long_factor": [2.0, 2.2, 2.6, 3.2, 4.0, 5.0],
    "original_max_position_embeddings": 32,
}  # fmt: skip
GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 8, "num_hidden_layers": 4}
FAMILIES = {
    "mistral": ("Mistral", {"sliding_window": 8}),
    "qwen2 with sliding layers": (
        "Qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    ),
    "phi4 mini": ("Phi3", {
        "rope_parameters": LONGROPE, "max_position_embeddings": 32, "pad_token_id": 0,
        "original_max_position_embeddings": 32,
    }),
    "phi4 mini, long": ("Phi3", {
        "rope_parameters": LONGROPE, "max_position_embeddings": 64, "pad_token_id": 0,
        "original_max_position_embeddings": 32,
    }),
    "gemma2": ("Gemma2", {**GEMMA, "tie_word_embeddings": True}),
    "gemma3": ("Gemma3", {**GEMMA, "layer_types": ["sliding_attention", "full_attention"] * 2}),
    "granite": ("Granite", {
        "embedding_multiplier": 3.0, "attention_multiplier": 0.2, "residual_multiplier": 0.4,
        "logits_scaling": 2.5,
    }),
    "smollm3": ("SmolLM3", {"no_rope_layer_interval": 2, "num_hidden_layers": 4,
                            "pad_token_id": 0}),
}  # fmt: skip


def family_error(name, folder):
    """How far one of FAMILIES is from its model in transformers."""
    kind, fields = FAMILIES[name]
    model = random_model(kind, **fields)
    model.set_attn_implementation("eager")  # soft caps are left out of the others
    if "long" in name:
        # transformers picks the divisors by each call's length, a program by its context.
        tokens = random_tokens(40)
        ours = backbone_of(saved(model, folder))(tokens, torch.tensor([0]))
        return relative_error(ours, model(tokens).logits[:, -1])
    return parity_error(model, folder, length=30)


@pytest.mark.parametrize("name", FAMILIES)
def test_family_equals_transformers(name, tmp_path):
    assert family_error(name, tmp_path) < TOLERANCE


@pytest.mark.parametrize(
    "kind, fields, message",
    [
        ("SmolLM3", {"no_rope_layers": [0, 1, 1], "pad_token_id": 0}, "every n-th layer only"),
        ("Gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("Llama", {"hidden_act": "relu"}, "'hidden_act' is 'relu'"),
        ("Llama", {"mlp_bias": True}, "mlp_bias"),
        ("Gpt2", {}, "model_type is 'gpt2'"),
    ],
)
def test_what_is_not_implemented_is_refused(kind, fields, message, tmp_path):
    if kind == "Gpt2":
        saved(random_model("Llama"), tmp_path)
        config = tmp_path / "config.json"
        config.write_text(config.read_text().replace('"llama"', '"gpt2"'))
    else:
        saved(random_model(kind, **fields), tmp_path)
    with pytest.raises(InputError, match=message):
        open_float_model(tmp_path)
