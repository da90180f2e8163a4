"""Every architecture that is read from GGUF against its model in transformers."""

import pytest
import torch
from gguf_writer import write_gguf
from peers import (
    TOLERANCE,
    prefill_then_decode,
    random_model,
    random_tokens,
    relative_error,
)
from test_families import FAMILIES
from test_llama4 import TINY as LLAMA4

from quatrain.backbone.build import build_backbone
from quatrain.checkpoint import open_float_model
from quatrain.errors import InputError

# A GGUF does not say by what a Gemma scales its queries: its head dimension, but in the largest.
SCALED = {"query_pre_attn_scalar": 16}
MODELS = {
    "llama": ("Llama", {}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "phi3": FAMILIES["phi4 mini"],
    "gemma2": ("Gemma2", {**FAMILIES["gemma2"][1], **SCALED}),
    "gemma3": (
        "Gemma3",
        {**FAMILIES["gemma3"][1], **SCALED, "num_hidden_layers": 6, "layer_types": None},
    ),
    "granite": FAMILIES["granite"],
    "smollm3": ("SmolLM3", {"num_hidden_layers": 4, "pad_token_id": 0}),
    "llama4": ("Llama4", LLAMA4),
}


@pytest.mark.parametrize("architecture", [*MODELS, "mistral"])
def test_gguf_equals_transformers(architecture, tmp_path):
    # llama.cpp knows Mistral as a llama.
    written = {"mistral": "llama"}.get(architecture, architecture)
    kind, fields = FAMILIES["mistral"] if architecture == "mistral" else MODELS[architecture]
    model = random_model(kind, **fields)
    model.set_attn_implementation("eager")
    tokens = random_tokens(30, model.config.vocab_size)
    opened = open_float_model(write_gguf(tmp_path / "m.gguf", model, written))
    ours = prefill_then_decode(build_backbone(opened.config, opened.tensors), tokens, 13)
    error = relative_error(ours, model(tokens).logits[:, 12:])
    print("ERR", architecture, error)
    assert error < TOLERANCE


def test_fused_rows_that_do_not_add_up(tmp_path):
    model = random_model("Phi3", **MODELS["phi3"][1])
    layer = model.model.layers[1].self_attn
    layer.qkv_proj.weight = torch.nn.Parameter(layer.qkv_proj.weight[:-1], requires_grad=False)
    path = write_gguf(tmp_path / "m.gguf", model, "phi3")
    with pytest.raises(InputError, match=r"blk\.1\.attn_qkv\.weight has 127 rows, expected 128"):
        open_float_model(path)
