"""Distillation: what a quantized checkpoint stores as floats, trained toward the model it was made
of."""
