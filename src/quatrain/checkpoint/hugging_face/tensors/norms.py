"""Norms that multiply by 1 + weight, as Gemma's and Nemotron's do; the backbone's by weight."""

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
