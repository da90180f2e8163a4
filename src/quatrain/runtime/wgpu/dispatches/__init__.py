"""What the GPU is asked to run: kernels with their constants and operands."""
