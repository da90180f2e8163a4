"""Model files -> named tensors: floating-point models of every format, int4 checkpoints."""

from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.checkpoint.float_model import FloatModel
from quatrain.checkpoint.open_checkpoint import open_checkpoint
from quatrain.checkpoint.open_model import open_float_model

__all__ = ["Checkpoint", "FloatModel", "open_checkpoint", "open_float_model"]
