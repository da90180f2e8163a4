"""Distillation: trains the floating-point tensors of a quantized checkpoint to match the original
model."""
