"""Files in the formats of others: GGUF, Meta's, MLX's, quantizers' folders and tokenizers."""
