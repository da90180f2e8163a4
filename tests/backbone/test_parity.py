"""The plain Llama family against transformers: the same weights, the same numbers."""

import json

import pytest
import torch
from tests.support.peers import (
    TOLERANCE,
    backbone_of,
    parity_error,
    prefill_then_decode,
    random_model,
    random_tokens,
    relative_error,
    saved,
)

LLAMA3_ROPE = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32, "rope_theta": 10000.0,
}  # fmt: skip
MODELS = {
    "llama": ("Llama", {}),
    "llama tied": ("Llama", {"tie_word_embeddings": True}),
    "llama 3.1 rope": ("Llama", {"rope_parameters": LLAMA3_ROPE}),
    "llama wide heads": ("Llama", {"head_dim": 32}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
}


@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_those_of_transformers(name, tmp_path):
    kind, fields = MODELS[name]
    assert parity_error(random_model(kind, **fields), tmp_path) < TOLERANCE


@pytest.mark.parametrize("kind", ["Llama", "Qwen3"])
def test_embeddings_in_and_hidden_states_out(kind, tmp_path):
    model = random_model(kind)
    tokens = random_tokens(20)
    embeddings = model.get_input_embeddings()(tokens)
    theirs = model.model(inputs_embeds=embeddings).last_hidden_state
    folder = saved(model, tmp_path)
    backbone = backbone_of(folder, embedding_input=True, hidden_output=True)
    assert backbone.tok_embeddings is None and backbone.output is None
    for prefill in (1, 9, 20):
        ours = prefill_then_decode(backbone, embeddings, prefill)
        assert relative_error(ours, theirs) < TOLERANCE


def test_meta_layout_rotates_neighbouring_pairs(tmp_path):
    model = random_model("Llama")
    tokens = random_tokens(16)
    theirs = model(tokens).logits
    names = {
        "self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk",
        "self_attn.v_proj": "attention.wv", "self_attn.o_proj": "attention.wo",
        "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2",
        "mlp.up_proj": "feed_forward.w3", "input_layernorm": "attention_norm",
        "post_attention_layernorm": "ffn_norm", "model.embed_tokens": "tok_embeddings",
        "model.norm": "norm", "lm_head": "output", "model.layers": "layers",
    }  # fmt: skip
    state = {}
    for name, tensor in model.state_dict().items():
        for theirs_name, ours_name in names.items():
            name = name.replace(theirs_name, ours_name)
        if ".wq." in name or ".wk." in name:
            # Rows i and i + head_dim / 2 of a head become neighbours.
            tensor = tensor.view(-1, 2, 8, 64).transpose(1, 2).reshape(tensor.shape)
        state[name] = tensor.contiguous()
    torch.save(state, tmp_path / "consolidated.00.pth")
    params = {
        "dim": 64, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 96,
        "hidden_dim": 96, "norm_eps": 1e-6, "rope_theta": 10000.0,
    }  # fmt: skip
    (tmp_path / "params.json").write_text(json.dumps(params))
    ours = prefill_then_decode(backbone_of(tmp_path), tokens, 7)
    assert relative_error(ours, theirs[:, 6:]) < TOLERANCE


def test_reset_forgets_the_context(tmp_path):
    backbone = backbone_of(saved(random_model("Llama"), tmp_path))
    first = prefill_then_decode(backbone, random_tokens(8), 4)
    assert torch.equal(prefill_then_decode(backbone, random_tokens(8), 4), first)
