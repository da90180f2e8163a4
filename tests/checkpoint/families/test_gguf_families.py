"""Every architecture that is read from GGUF against its model in transformers."""

import numpy as np
import pytest
import torch
from tests.checkpoint.families.test_families import FAMILIES
from tests.checkpoint.families.test_llama4 import TINY as LLAMA4
from tests.support.gguf_writer import write_gguf
from tests.support.peers import (
    TOLERANCE,
    prefill_then_decode,
    random_model,
    random_tokens,
    relative_error,
)

from quatrain.backbone.build import build_backbone
from quatrain.checkpoint import open_float_model
from quatrain.errors import InputError
from quatrain.quantize.model import QuantizeReport, quantize_tensor
from quatrain.quantize.plan import plan

# A GGUF does not say by what a Gemma scales its queries: its head dimension, but in the largest.
SCALED = {"query_pre_attn_scalar": 16}
MODELS = {
    "llama": ("Llama", {}),
    "mistral": FAMILIES["mistral"],
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


def gguf_error(name, folder):
    """How far one of MODELS, written as a GGUF, is from transformers."""
    kind, fields = MODELS[name]
    model = random_model(kind, **fields)
    model.set_attn_implementation("eager")
    tokens = random_tokens(30, model.config.vocab_size)
    architecture = "llama" if name == "mistral" else name  # llama.cpp does not tell them apart
    opened = open_float_model(write_gguf(folder / "m.gguf", model, architecture))
    ours = prefill_then_decode(build_backbone(opened.config, opened.tensors), tokens, 13)
    return relative_error(ours, model(tokens).logits[:, 12:])


@pytest.mark.parametrize("name", MODELS)
def test_gguf_equals_transformers(name, tmp_path):
    assert gguf_error(name, tmp_path) < TOLERANCE


def test_fused_rows_that_do_not_add_up(tmp_path):
    model = random_model("Phi3", **MODELS["phi3"][1])
    layer = model.model.layers[1].self_attn
    layer.qkv_proj.weight = torch.nn.Parameter(layer.qkv_proj.weight[:-1], requires_grad=False)
    path = write_gguf(tmp_path / "m.gguf", model, "phi3")
    with pytest.raises(InputError, match=r"blk\.1\.attn_qkv\.weight has 127 rows, expected 128"):
        open_float_model(path)


def q4_0_experts(seed, experts, rows, columns):
    """(blocks as the format lays them out, the integers and scales that they hold)"""
    rng = np.random.default_rng(seed)
    values = rng.integers(-8, 8, (experts, rows, columns)).astype(np.int8)
    scales = rng.uniform(0.01, 0.1, (experts, rows, columns // 32)).astype(np.float16)
    offset = (values + 8).astype(np.uint8).reshape(experts, rows, -1, 32)
    halves = offset[..., :16] | offset[..., 16:] << 4
    blocks = np.concatenate((scales[..., None].view(np.uint8), halves), axis=-1)
    return blocks.reshape(experts, rows, -1), values, scales


def test_q4_0_experts_are_kept(tmp_path):
    """Integers and scales of [experts, N, K] are the file's own, none rounded again."""
    shapes = {"gate": (96, 64), "up": (96, 64), "down": (64, 96)}
    made = {
        f"blk.{layer}.ffn_{part}_exps.weight": q4_0_experts(layer * 3 + index, 4, *shape)
        for layer in (1, 3)
        for index, (part, shape) in enumerate(shapes.items())
    }
    q4_0 = {name: blocks for name, (blocks, _, _) in made.items()}
    model = random_model("Llama4", **{**LLAMA4, "intermediate_size": 96})
    path = write_gguf(tmp_path / "m.gguf", model, "llama4", q4_0)
    opened, report = open_float_model(path), QuantizeReport("", "", 32)
    steps, _ = plan(opened, 32, "fp", "fp")
    kept = {
        step.source: quantize_tensor(opened, step, report)[1]
        for step in steps
        if ".experts." in step.source
    }
    for name, (_, values, scales) in made.items():
        layer, part = name.removesuffix("_exps.weight").removeprefix("blk.").split(".ffn_")
        ours = {"gate": "w1", "up": "w3", "down": "w2"}[part]
        integers, found = kept[f"layers.{layer}.feed_forward.experts.{ours}.weight"]
        assert np.array_equal(integers.numpy(), values)
        assert np.array_equal(found.numpy(), scales.astype(np.float32))
    assert report.exact_groups == 2 * 4 * (96 * 2 * 2 + 64 * 3)
