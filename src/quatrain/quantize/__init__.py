"""Floating-point models to int4 checkpoints, and other programs' checkpoints to this layout."""

from quatrain.quantize.convert import ConvertOptions, ConvertReport, convert_model
from quatrain.quantize.methods.round_to_nearest import quantize_channels, quantize_groups
from quatrain.quantize.model import QuantizeReport, quantize_model

__all__ = [
    "ConvertOptions",
    "ConvertReport",
    "QuantizeReport",
    "convert_model",
    "quantize_channels",
    "quantize_groups",
    "quantize_model",
]
