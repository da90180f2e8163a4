"""How far the model of a row of the table is from transformers, by each of its readings."""

from pathlib import Path

import torch
from tests.support.formats.gguf_models import write_gguf_model
from tests.support.formats.mlx_folders import write_mlx_model
from tests.support.formats.quantized_models import write_quantized_model
from tests.support.models.families import ROWS, Row
from tests.support.models.peers import (
    backbone_of,
    exact_logits,
    parity_error,
    prefill_then_decode,
    random_model,
    random_tokens,
    relative_error,
    saved,
)
from transformers import PreTrainedModel

from quatrain.backbone.build import build_backbone
from quatrain.backbone.model import Backbone
from quatrain.checkpoint.open import open_checkpoint
from quatrain.int4 import Scheme
from quatrain.quantize.requantize import Requantization


def model_of(row: Row, **fields) -> PreTrainedModel:
    """Its model of transformers; `fields` replace the row's."""
    model = random_model(row.kind, **{**row.fields, **fields})
    model.set_attn_implementation("eager")  # soft caps are left out of the others
    return model


def float_error(name: str, folder: Path) -> float:
    """Of the folder that transformers saves."""
    row = ROWS[name]
    model = model_of(row)
    if row.by_context:
        tokens = random_tokens(40)
        ours = backbone_of(saved(model, folder))(tokens, torch.tensor([0]))
        return relative_error(ours, exact_logits(model, tokens)[:, -1])
    return parity_error(model, folder, length=30)


def gguf_error(name: str, folder: Path) -> float:
    row = ROWS[name]
    assert row.gguf is not None
    model = model_of(row, **row.gguf.fields)
    return _error(backbone_of(write_gguf_model(folder / "m.gguf", model, row.gguf)), model, 30, 13)


def meta_error(name: str, folder: Path) -> float:
    row = ROWS[name]
    assert row.meta is not None
    model = model_of(row)
    return _error(backbone_of(row.meta(folder, model)), model, 20, 7)


def quantized_error(name: str, method: str, folder: Path) -> float:
    """Of a folder of the quantizer `method`, against transformers on the values that it holds."""
    model = model_of(ROWS[name])
    return checkpoint_error(write_quantized_model(folder, model, method), model)


def mlx_error(name: str, quantized: bool, folder: Path) -> float:
    """Of the folder that mlx-lm saves."""
    model = model_of(ROWS[name])
    write_mlx_model(folder, model, quantized)
    if quantized:
        return checkpoint_error(folder, model, Requantization())
    return _error(backbone_of(folder), model, 24, 9)


def checkpoint_error(
    folder: Path, model: PreTrainedModel, round_again: Requantization | None = None
) -> float:
    """How far the checkpoint `folder` is from `model`, both in floating point."""
    checkpoint = open_checkpoint(folder, round_again=round_again)
    checkpoint.check_values()
    backbone = build_backbone(checkpoint.config, checkpoint.tensors, Scheme.WEIGHT_ONLY)
    return _error(backbone, model, 24, 9)


def _error(backbone: Backbone, model: PreTrainedModel, length: int, prefill: int) -> float:
    """Of logits: of the first `prefill` of `length` tokens at once, then of each."""
    tokens = random_tokens(length, model.config.get_text_config().vocab_size)
    ours = prefill_then_decode(backbone, tokens, prefill)
    return relative_error(ours, exact_logits(model, tokens)[:, prefill - 1 :])
