"""Gemma 4's text model (E2B, E4B): Gemma 3's norms without their 1, wider heads in layers without a
window, of which a part of the planes turns, normed values, last layers that read others' keys, an
embedding for each layer, and a number for all that a layer gives."""

from quatrain.checkpoint.families.family import Family
from quatrain.checkpoint.families.gemma4.gguf import GGUF
from quatrain.checkpoint.families.gemma4.hugging_face import HUGGING_FACE

GEMMA4 = Family(HUGGING_FACE, GGUF)
