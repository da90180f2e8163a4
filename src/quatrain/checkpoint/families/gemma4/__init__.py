"""Gemma 4's text model: Gemma 3's norms without the added 1, wider heads with partial rotation in
full-attention layers, normalized values, and a factor for the output of each layer; in E2B and E4B
last layers that use the keys of others, and per-layer embeddings; in larger models keys of
full-attention layers that are the values too."""

from quatrain.checkpoint.families.family import Family
from quatrain.checkpoint.families.gemma4.gguf import GGUF
from quatrain.checkpoint.families.gemma4.hugging_face import HUGGING_FACE

GEMMA4 = Family(HUGGING_FACE, GGUF)
