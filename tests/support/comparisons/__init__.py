"""How tests compare: logits but for rounding, programs with their checkpoints and plans."""
