"""Models with an embedding for each layer (Gemma 4): what is exported, and what is refused."""

import pytest
import torch
from tests.support.families import GEMMA4
from tests.support.peers import (
    TOLERANCE,
    exact_logits,
    random_model,
    random_tokens,
    relative_error,
    saved,
)

from quatrain.arithmetic import ARITHMETIC_OF
from quatrain.backbone.build import build_backbone
from quatrain.backbone.layer_by_layer import LayerByLayer
from quatrain.checkpoint.open import open_checkpoint, open_float_model
from quatrain.errors import InputError
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.int4 import Scheme
from quatrain.quantize.pipeline import quantize_model
from quatrain.runtime.load import load_runner
from quatrain.verify.eager import load_eager

# Linears of few shapes: of XNNPACK each shape is lowered.
FIELDS = GEMMA4 | {
    "num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2,
    "num_kv_shared_layers": 2, "use_double_wide_mlp": True, "num_key_value_heads": 4,
    "intermediate_size": 64, "hidden_size_per_layer_input": 64,
}  # fmt: skip
CALLS = ((0, 13), (13, 14), (14, 20))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """(a model of transformers, the folder that it was saved to)"""
    made = random_model("Gemma4", **FIELDS)
    made.set_attn_implementation("eager")
    return made, saved(made, tmp_path_factory.mktemp("gemma4") / "model")


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gemma4") / "int4"
    quantize_model(model[1], folder, method="rtn")
    return folder


def test_layer_by_layer(model):
    opened, tokens = open_float_model(model[1]), random_tokens(20)
    layers = LayerByLayer(opened.config, opened.tensors)
    ours = layers.ends.logits(layers.hidden(tokens))
    assert relative_error(ours, exact_logits(model[0], tokens)) < TOLERANCE


def test_the_table_is_int4_and_has_groups_of_its_own(checkpoint):
    stored = open_checkpoint(checkpoint).tensors.stored
    table, scales = (stored[f"per_layer.embeddings.{part}"] for part in ("weight", "scales"))
    assert (table.shape, table.dtype, scales.shape) == ((96, 256), torch.int8, (96, 8))


def test_vulkan_is_refused_before_the_work(checkpoint, tmp_path):
    message = r"per_layer_dim.*96 x 256.*no operator that reads rows.*--backend xnnpack"
    with pytest.raises(InputError, match=message):
        export_checkpoint(checkpoint, tmp_path / "m.pte")
    assert not list(tmp_path.iterdir())


def test_embeddings_as_its_input_are_refused(checkpoint):
    opened = open_checkpoint(checkpoint)
    with pytest.raises(InputError, match="needs token ids"):
        build_backbone(opened.config, opened.tensors, embedding_input=True)


@pytest.mark.thorough
def test_xnnpack_equals_eager(checkpoint, tmp_path):
    """Beyond the window, in pieces and steps."""
    options = ExportOptions(Scheme.WEIGHT_ONLY, "xnnpack", allow_fallback=True)
    export_checkpoint(checkpoint, tmp_path / "m.pte", options)
    runner = load_runner(tmp_path / "m.pte", "executorch")
    eager = load_eager(checkpoint, Scheme.WEIGHT_ONLY, ARITHMETIC_OF["xnnpack"])
    tokens = random_tokens(20)
    for start, end in CALLS:
        call = tokens[:, start:end], torch.tensor([start])
        found, expected = (each.forward(*call).reshape(-1) for each in (runner, eager))
        assert relative_error(found, expected) < TOLERANCE, start
