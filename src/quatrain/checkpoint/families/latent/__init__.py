"""Latent attention, as DeepSeek's fields and tensors describe it."""
