"""The tensors of a Hugging Face folder, in the names and the floating-point values of a model."""
