"""Floating-point models to int4 checkpoints."""

from quatrain.quantize.groups import quantize_channels, quantize_groups
from quatrain.quantize.model import QuantizeReport, quantize_model

__all__ = ["QuantizeReport", "quantize_channels", "quantize_groups", "quantize_model"]
