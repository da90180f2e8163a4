"""Norms that multiply by 1 + weight, as Gemma's and Nemotron's do; the backbone's by weight."""

import torch

from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.hugging_face.fields import Fields


def norms_plus_one(stored: LazyTensors, fields: Fields, source: str) -> LazyTensors:
    """`stored` with 1 added to the weights of norms, in float32."""
    return LazyTensors(
        {
            name: _plus_one(tensor) if name.endswith("norm.weight") else tensor
            for name, tensor in stored.stored.items()
        }
    )


def _plus_one(tensor: StoredTensor) -> StoredTensor:
    return StoredTensor(tensor.shape, torch.float32, lambda: tensor.load().float() + 1.0)
