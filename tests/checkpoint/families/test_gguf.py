"""GGUF files of families whose tensors are several in one, or in three dimensions."""

import numpy as np
import pytest
import torch
from tests.support.families import ROWS
from tests.support.family_errors import model_of
from tests.support.gguf_models import write_gguf_model

from quatrain.checkpoint.open import open_float_model
from quatrain.errors import InputError
from quatrain.quantize.methods import quantize_tensor
from quatrain.quantize.plan_model import plan_model


def test_fused_rows_that_do_not_add_up(tmp_path):
    row = ROWS["phi4 mini"]
    model = model_of(row)
    layer = model.model.layers[1].self_attn
    layer.qkv_proj.weight = torch.nn.Parameter(layer.qkv_proj.weight[:-1], requires_grad=False)
    path = write_gguf_model(tmp_path / "m.gguf", model, row.gguf)
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
    row = ROWS["llama4"]
    model = model_of(row, intermediate_size=96)
    path = write_gguf_model(tmp_path / "m.gguf", model, row.gguf, q4_0)
    opened = open_float_model(path)
    kept = {
        tensor.source: quantize_tensor(opened, tensor)
        for tensor in plan_model(opened, 32, "fp", "int8").tensors
        if ".experts." in tensor.source
    }
    for name, (_, values, scales) in made.items():
        layer, part = name.removesuffix("_exps.weight").removeprefix("blk.").split(".ffn_")
        ours = {"gate": "w1", "up": "w3", "down": "w2"}[part]
        integers, found = kept[f"layers.{layer}.feed_forward.experts.{ours}.weight"].tensors
        assert np.array_equal(integers.numpy(), values)
        assert np.array_equal(found.numpy(), scales.astype(np.float32))
    exact_groups = sum(tensor.error.exact_groups for tensor in kept.values())
    assert exact_groups == 2 * 4 * (96 * 2 * 2 + 64 * 3)
