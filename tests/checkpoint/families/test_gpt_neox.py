"""Files of Pythia, as the hub has them."""

import json

import torch
from safetensors.torch import load_file, save_file
from tests.support.models.families import ROWS
from tests.support.models.family_errors import model_of
from tests.support.models.peers import (
    TOLERANCE,
    backbone_of,
    exact_logits,
    prefill_then_decode,
    random_tokens,
    relative_error,
    saved,
)

from quatrain.checkpoint.open import open_float_model


def test_causal_masks_and_the_first_names_of_fields(tmp_path):
    model = model_of(ROWS["gpt neox"])
    folder = saved(model, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    stored = {name.replace("lm_head.", "embed_out."): tensor for name, tensor in tensors.items()}
    for layer in range(model.config.num_hidden_layers):
        attention = f"gpt_neox.layers.{layer}.attention"
        stored[f"{attention}.bias"] = torch.ones(1, 1, 64, 64, dtype=torch.bool).tril()
        stored[f"{attention}.masked_bias"] = torch.tensor(-1e9)
        stored[f"{attention}.rotary_emb.inv_freq"] = torch.ones(2)
    save_file(stored, folder / "model.safetensors")
    fields = json.loads((folder / "config.json").read_text())
    rope = fields.pop("rope_parameters")
    fields["rotary_emb_base"], fields["rotary_pct"] = (
        rope["rope_theta"], rope["partial_rotary_factor"]
    )  # fmt: skip
    (folder / "config.json").write_text(json.dumps(fields))
    (note,) = open_float_model(folder).notes
    assert "model.layers.0.self_attn.masked_bias" in note
    tokens = random_tokens(12)
    ours = prefill_then_decode(backbone_of(folder), tokens, 6)
    assert relative_error(ours, exact_logits(model, tokens)[:, 5:]) < TOLERANCE
