"""What second-order rounding knows of a linear's inputs, against numpy and a model with a sink."""

import numpy as np
import pytest
import torch
from tests.support.models import tiny_models as tiny
from tests.support.models.families import ROWS
from tests.support.models.family_errors import model_of
from tests.support.models.peers import saved

from quatrain.backbone.layer_by_layer import LayerByLayer
from quatrain.checkpoint.open import open_float_model
from quatrain.quantize.methods import paired_layer
from quatrain.quantize.methods.linear_inputs import LinearInputs
from quatrain.quantize.methods.paired_layer import PairedLayer


@pytest.mark.parametrize(("rows", "columns"), [(1, 32), (2, 32), (5000, 32), (7, 544)])
def test_moments_are_weighted_means(rows, columns):
    seen, weights = torch.randn(rows, columns), torch.rand(rows, 1) + 0.1
    inputs = LinearInputs(seen, seen, 32)
    inputs.weights = weights
    summed = (seen * weights).double().numpy().T @ seen.double().numpy()
    expected = summed / float(weights.double().sum())
    assert np.allclose(inputs.moments.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_rows_of_zeros_are_not_tokens():
    seen = torch.randn(10, 32)
    padded = LinearInputs(torch.cat([seen, torch.zeros(90, 32)]), torch.zeros(100, 32), 32)
    assert padded.tokens == 0
    padded = LinearInputs(torch.zeros(100, 32), torch.cat([seen, torch.zeros(90, 32)]), 32)
    assert padded.tokens == 10
    alone = LinearInputs(torch.zeros(10, 32), seen, 32)
    assert torch.allclose(padded.moments, alone.moments, atol=1e-6)


@pytest.mark.parametrize("rows", [5, 32, 50])
@pytest.mark.parametrize("of_stream", [False, True])
def test_the_prediction_of_floating_point_outputs_is_ridge_regression(rows, of_stream):
    exact, noise, weight = torch.randn(400, 32), torch.randn(400, 32), torch.randn(rows, 32)
    seen = exact + 0.3 * noise
    missing = (torch.randn(400, rows), torch.randn(400, rows)) if of_stream else None
    found = LinearInputs(exact, seen, 32).toward_float(weight, missing)
    x, w = seen.double().numpy(), weight.double().numpy()
    wanted = (exact - seen).double().numpy() @ w.T
    wanted += (missing[0] - missing[1]).double().numpy() if missing else 0.0
    moments = x.T @ x / 400
    ridged = moments + 0.2 * np.trace(moments) / 32 * np.eye(32)
    expected = w + 0.5 * np.linalg.solve(ridged, x.T @ wanted / 400).T
    assert np.allclose(found.numpy(), expected, atol=1e-5)


@torch.inference_mode()
def test_a_token_of_huge_states_is_not_all_that_is_seen(tmp_path):
    """An attention sink: what some tokens add to the residual stream is a thousand times more."""
    model = open_float_model(tiny.write_hugging_face(tmp_path / "m"))
    layers = LayerByLayer(model.config, model.tensors)
    stream = layers.ends.embed(torch.randint(model.config.vocab_size, (16, 64)))
    plain = _rounded_w2(layers, stream, factor=1)
    with_sink = _rounded_w2(layers, stream, factor=1000)
    same = (plain == with_sink).float().mean()
    assert same > 0.9, same


def _rounded_w2(layers: LayerByLayer, stream: torch.Tensor, factor: float) -> torch.Tensor:
    """The down projection's integers, where each text's first input to it is `factor` as large."""
    block = layers.load(0, 2 * len(stream), stream.shape[1])
    methods = {"feed_forward.w2": "gptq"}
    layer = PairedLayer(block, methods, 32, torch.zeros(len(stream), dtype=torch.bool))

    def enlarge(module: torch.nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        first = torch.arange(stream.shape[1])[:, None] == 0
        return (torch.where(first, args[0] * factor, args[0]),)

    block.feed_forward.w2.register_forward_pre_hook(enlarge)
    layers.run(block, torch.cat([stream, stream]))
    return layer.taken()["feed_forward.w2"][0]


@torch.inference_mode()
@pytest.mark.parametrize(
    ("name", "linears"),
    [
        *((name, ("attention.wo", "feed_forward.w2")) for name in ("llama", "granite", "gemma3")),
        ("granite 4 h", ("mamba.out_proj",)),
    ],
)
def test_what_the_stream_lacks_is_made_good(name, linears, tmp_path, monkeypatch):
    """Of what branches add to it as they are, times a factor, and through a norm of their own."""
    model = open_float_model(saved(model_of(ROWS[name]), tmp_path / "m"))
    layers = LayerByLayer(model.config, model.tensors)
    exact = 4 * torch.randn(32, 64, model.config.dim)
    seen = 0.8 * exact  # of which a norm makes the same
    found = {}
    for made_good in (True, False):
        if not made_good:
            monkeypatch.setattr(paired_layer, "_paths_to_stream", lambda block: {})
        block = layers.load(0, 2 * len(exact), exact.shape[1])
        methods = dict.fromkeys(linears, "gptq")
        PairedLayer(block, methods, 32, torch.zeros(len(exact), dtype=torch.bool))
        should_be, is_now = layers.run(block, torch.cat([exact, seen])).chunk(2)
        found[made_good] = float((is_now - should_be).norm() / (seen - exact).norm())
    assert found[True] < 0.95 * found[False], found
