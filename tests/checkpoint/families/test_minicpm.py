"""MiniCPM's files as they were released: what they leave out, and what is refused of them."""

import json

import gguf
import pytest
import torch
from tests.support.formats.gguf_models import Conversion, write_gguf_model
from tests.support.models.families import MINICPM4_ROPE
from tests.support.models.peers import (
    TOLERANCE,
    backbone_of,
    change_config,
    exact_logits,
    parity_error,
    random_model,
    random_tokens,
    relative_error,
    saved,
)

from quatrain.checkpoint.open import open_float_model
from quatrain.errors import InputError

# Of MiniCPM-2B-sft-bf16's config.json, but for its sizes.
MINICPM_2B = {
    "architectures": ["MiniCPMForCausalLM"], "bos_token_id": 1, "eos_token_id": 2,
    "hidden_act": "silu", "initializer_range": 0.1, "rms_norm_eps": 1e-05, "rope_scaling": None,
    "torch_dtype": "bfloat16", "transformers_version": "4.36.0", "use_cache": True,
    "scale_emb": 12, "dim_model_base": 256, "scale_depth": 1.4,
    "auto_map": {"AutoModelForCausalLM": "modeling_minicpm.MiniCPMForCausalLM"},
}  # fmt: skip
SIZES = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "vocab_size", "max_position_embeddings",
)  # fmt: skip
OF_2B = {"scale_emb": 12, "dim_model_base": 256, "scale_depth": 1.4, "rms_norm_eps": 1e-05}


@pytest.fixture(scope="module")
def tied():
    return random_model("MiniCPM", **OF_2B, tie_word_embeddings=True)


@pytest.fixture
def folder(tied, tmp_path):
    return saved(tied, tmp_path)


def test_the_2b_states_no_model_type_and_no_base(tied, folder, tmp_path):
    stated = json.loads((folder / "config.json").read_text())
    sizes = {name: stated[name] for name in SIZES}
    assert parity_error(tied, folder) < TOLERANCE
    tokens = random_tokens(24)
    expected = backbone_of(folder)(tokens, torch.tensor([0]))
    (folder / "config.json").write_text(json.dumps(MINICPM_2B | sizes))
    ours = backbone_of(folder)(tokens, torch.tensor([0]))
    assert relative_error(ours, expected) < TOLERANCE


def test_the_first_gguf_files_have_no_multipliers(tied, tmp_path):
    path = write_gguf_model(tmp_path / "m.gguf", tied, Conversion("minicpm", interleaved=True))
    tokens = random_tokens(24)
    ours = backbone_of(path)(tokens, torch.tensor([0]))
    assert relative_error(ours, exact_logits(tied, tokens)[:, -1]) < TOLERANCE


def test_a_gguf_with_longrope_may_state_no_context_of_pretraining(tmp_path):
    rope = MINICPM4_ROPE | {"original_max_position_embeddings": 64}
    model = random_model("MiniCPM", **OF_2B, rope_parameters=rope)
    conversion = Conversion(
        "minicpm", interleaved=True,
        figures=lambda config: {"rope_scaling_type": gguf.RopeScalingType.LONGROPE},
    )  # fmt: skip
    path = write_gguf_model(tmp_path / "m.gguf", model, conversion)
    tokens = random_tokens(24)
    ours = backbone_of(path)(tokens, torch.tensor([0]))
    assert relative_error(ours, exact_logits(model, tokens)[:, -1]) < TOLERANCE


def test_sparse_attention_is_said_not_to_be_used(folder):
    assert open_float_model(folder).notes == ()
    change_config(folder, sparse_config={"topk": 64, "dense_len": 8192})
    (note,) = open_float_model(folder).notes
    assert "sparse_config is not used" in note and "up to 8192 tokens" in note


@pytest.mark.parametrize(
    "field",
    [
        {"num_experts": 8},
        {"mixer_types": ["minicpm4", "lightning-attn"]},
        {"hidden_act": "fatrelu"},
    ],
)
def test_what_is_not_implemented_is_refused(folder, field):
    (name,) = field
    with pytest.raises(InputError, match=f"field '{name}' is "):
        open_float_model(change_config(folder, **field))


@pytest.mark.parametrize("kinds", [None, [], ["LlamaForCausalLM"], [None], "MiniCPMForCausalLM"])
def test_a_missing_model_type_is_taken_from_no_other_architectures(folder, kinds):
    with pytest.raises(InputError, match="has no model_type"):
        open_float_model(change_config(folder, ["model_type"], architectures=kinds))
