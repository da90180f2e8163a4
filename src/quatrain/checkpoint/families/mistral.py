"""Mistral: every layer sees the last `sliding_window` tokens only."""

from quatrain.checkpoint.families.family import Family, sliding_window

MISTRAL = Family(params=sliding_window)
