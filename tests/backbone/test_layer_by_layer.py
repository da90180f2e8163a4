"""Several texts side by side, one layer in memory at a time: what the whole backbone computes."""

import pytest
import torch
from tests.support.models.knobs import ALL, KNOBS, TINY, Peer, write_meta_folder
from tests.support.models.peers import backbone_of

from quatrain.backbone.layer_by_layer import LayerByLayer
from quatrain.checkpoint.open import open_float_model

TEXTS, LENGTH = 3, 12
WINDOWS = {
    "window": {"sliding_window": 4, "local_rope_theta": 100.0},
    "soft cap": {"attn_logit_softcapping": 1.5},
    "chunk": {"attention_chunk_size": 4, "no_rope_layer_interval": 2},
}
FIELDS = {name: fields for name, fields in KNOBS.items() if name != "apply_embedding"}


@pytest.mark.parametrize("name", [*FIELDS, *WINDOWS, "all together"])
def test_hidden_states_are_those_of_the_backbone(name, tmp_path):
    fields = {**FIELDS, **WINDOWS}.get(name, ALL)
    peer_fields = {} if name in WINDOWS else fields
    folder = write_meta_folder(tmp_path, fields, Peer(peer_fields).state)
    rows = len(fields.get("input_prune_map") or range(TINY["vocab_size"]))
    tokens = torch.randint(rows, (TEXTS, LENGTH))
    whole, model = backbone_of(folder), open_float_model(folder)
    found = LayerByLayer(model.config, model.tensors).hidden(tokens)
    for text, hidden in zip(tokens, found, strict=True):
        whole.reset()
        assert torch.allclose(hidden, whole.hidden(text[None], 0)[0], rtol=1e-4, atol=1e-5)
