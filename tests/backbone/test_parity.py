"""The plain Llama family against transformers: the same weights, the same numbers."""

import pytest
import torch
from tests.support.models.peers import (
    TOLERANCE,
    backbone_of,
    prefill_then_decode,
    random_model,
    random_tokens,
    relative_error,
    saved,
)


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


def test_reset_forgets_the_context(tmp_path):
    backbone = backbone_of(saved(random_model("Llama"), tmp_path))
    first = prefill_then_decode(backbone, random_tokens(8), 4)
    assert torch.equal(prefill_then_decode(backbone, random_tokens(8), 4), first)
