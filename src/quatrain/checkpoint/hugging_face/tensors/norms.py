"""Norms that multiply by 1 + weight, as Gemma's and Nemotron's do, or by nothing; the backbone's by
weight."""

import torch

from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.hugging_face.fields import Fields


def norms_plus_one(stored: LazyTensors, fields: Fields) -> LazyTensors:
    """`stored` with 1 added to the weights of norms, in float32."""
    return stored.each(_plus_one)


def _plus_one(name: str, tensor: StoredTensor) -> StoredTensor:
    if not name.endswith("norm.weight"):
        return tensor
    return tensor.changed(lambda weight: weight.float() + 1.0, dtype=torch.float32)


def with_norms_of_ones(stored: LazyTensors, fields: Fields) -> LazyTensors:
    """`stored` with a weight of ones for each norm of the residual stream, which has none."""
    width = fields.integer("hidden_size")
    norms = [
        f"model.layers.{index}.{norm}.weight"
        for index in range(fields.layer_count())
        for norm in ("input_layernorm", "post_attention_layernorm")
    ]
    ones = StoredTensor((width,), torch.float32, lambda: torch.ones(width))
    return LazyTensors(stored.stored | dict.fromkeys([*norms, "model.norm.weight"], ones))
