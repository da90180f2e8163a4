"""Gemma 3n's text model (E2B, E4B): Gemma 4's embedding for each layer, shared keys and normed
values; a residual stream of several, a learned augmented residual beside attention, and gates that
are mostly cut to 0 in the first layers."""

from quatrain.checkpoint.families.family import Family
from quatrain.checkpoint.families.gemma3n.gguf import GGUF
from quatrain.checkpoint.families.gemma3n.hugging_face import HUGGING_FACE

GEMMA3N = Family(HUGGING_FACE, GGUF)
