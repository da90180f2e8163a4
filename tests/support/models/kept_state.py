"""Models and programs whose state no call can go back in: text after text, in pieces and steps."""

import pytest
import torch
from tests.support.models.knobs import Peer, write_meta_folder
from tests.support.models.peers import (
    TOLERANCE,
    backbone_of,
    exact_logits,
    prefill_then_decode,
    random_tokens,
    relative_error,
)

from quatrain.backbone.layer_by_layer import LayerByLayer
from quatrain.checkpoint.open import open_float_model
from quatrain.errors import InputError
from quatrain.runtime.generation.kept_context import KeptContext
from quatrain.runtime.load import load_runner
from quatrain.verify.explain.computed_program import ComputedProgram

# Shorter than what is kept, as long, longer; steps from the first on.
TEXTS = ([7, 1, 1, 2, 9], [20], [1] * 6, [1, 2, 1, 5])


def assert_texts_agree(path, eager, devices, bound=1e-5):
    """No reset between texts: a program has none. Calls that are too long for it go in parts."""
    tokens = random_tokens(20)
    for device in devices:
        runner = load_runner(path, device)
        for lengths in TEXTS:
            at = 0
            longest = runner.metadata["get_max_seq_len"]
            parts = [min(longest, n - i) for n in lengths for i in range(0, n, longest)]
            for length in parts:
                call = tokens[:, at : at + length], torch.tensor([at])
                found, expected = (each.forward(*call).reshape(-1) for each in (runner, eager))
                assert (found - expected).abs().max() <= bound * expected.abs().max(), (lengths, at)
                at += length


def assert_calls_follow(runner):
    """What a kept context would go back to is gone: it computes the text anew."""
    kept, text = KeptContext(runner), random_tokens(12)
    kept.forward(text, torch.tensor([0]))
    with pytest.raises(InputError, match="position 12 or begins a text at position 0"):
        runner.forward(text[:, 5:], torch.tensor([5]))
    kept.reset()
    kept.forward(torch.cat([text[:, :9], text[:, :1]], 1), torch.tensor([0]))
    assert kept.computed == 10


def assert_answers_are_read_anew(path):
    """As `explain` reads them: several after one prompt, some from where they differ on."""
    model, fresh = ComputedProgram(path), ComputedProgram(path)
    for each in (model, fresh):
        each.read_prompt([1, 2, 3, 4], each.own)
    model.read_answer([5, 6, 7], 4)
    expected, bounds = fresh.read_answer([5, 8], 4), {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(model.read_answer([8], 5), expected[1:], **bounds)
    torch.testing.assert_close(model.read_answer([5, 8], 4), expected, **bounds)


def assert_equals_executorch(folder, fields, prefills):
    """A model of these `fields`, by ExecuTorch's names of parameters and tensors, after `prefills`
    of so many tokens and in the steps that follow."""
    peer, tokens = Peer(fields), random_tokens(12)
    theirs = peer.steps(tokens)
    backbone = backbone_of(write_meta_folder(folder, fields, peer.state))
    for prefill in prefills:
        ours = prefill_then_decode(backbone, tokens, prefill)
        assert relative_error(ours, theirs[:, prefill - 1 :]) < TOLERANCE


def assert_pieces_equal_transformers(model, folder, pieces, bound):
    """Each of `pieces`, lengths of calls, is the same text, without any reset between them."""
    backbone, tokens = backbone_of(folder), random_tokens(sum(pieces[0]))
    theirs = exact_logits(model, tokens)[0]
    for lengths in pieces:
        at = 0
        for length in lengths:
            ours = backbone(tokens[:, at : at + length], torch.tensor([at]))
            at += length
            assert relative_error(ours, theirs[at - 1]) < bound, (lengths, at)


def assert_side_by_side_equals_each_alone(model, folder, bound):
    opened = open_float_model(folder)
    texts = random_tokens(40).view(2, 20)
    layers = LayerByLayer(opened.config, opened.tensors)
    found = layers.ends.logits(layers.hidden(texts))
    for index in range(2):
        theirs = exact_logits(model, texts[index : index + 1])[0]
        assert relative_error(found[index], theirs) < bound
