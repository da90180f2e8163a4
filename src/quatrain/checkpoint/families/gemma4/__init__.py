"""Gemma 4's text model (E2B, E4B): Gemma 3's norms without the added 1, wider heads with partial
rotation in full-attention layers, normalized values, last layers that use the keys of others,
per-layer embeddings, and a factor for the output of each layer."""

from quatrain.checkpoint.families.family import Family
from quatrain.checkpoint.families.gemma4.gguf import GGUF
from quatrain.checkpoint.families.gemma4.hugging_face import HUGGING_FACE

GEMMA4 = Family(HUGGING_FACE, GGUF)
