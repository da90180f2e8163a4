"""The eager backbone of a checkpoint on disk: what programs are held against."""

from pathlib import Path

from quatrain.arithmetic import VULKAN_ARITHMETIC, Arithmetic
from quatrain.backbone.build import build_backbone
from quatrain.backbone.model import Backbone
from quatrain.checkpoint import open_checkpoint
from quatrain.int4 import Scheme
from quatrain.linear.int4 import compute_as, freeze_weights


def load_eager(
    checkpoint: Path,
    scheme: Scheme = Scheme.DYNAMIC_INT8,
    arithmetic: Arithmetic = VULKAN_ARITHMETIC,
) -> Backbone:
    """The backbone of `checkpoint`, its weights dequantized once for speed.

    `arithmetic`: how the runtime that it stands for computes 8da4w linears.
    """
    opened = open_checkpoint(checkpoint)
    opened.check_values()
    backbone = build_backbone(opened.config, opened.tensors, scheme, group_size=opened.group_size)
    compute_as(backbone, arithmetic)
    freeze_weights(backbone)
    return backbone
