"""Qwen 3.5, dense, the text model of what also sees included: a gated delta rule in three of four
layers; in the others gated attention, QK norm, a quarter of each head rotated."""

from quatrain.checkpoint.families.family import Family
from quatrain.checkpoint.families.qwen3_5.gguf import GGUF
from quatrain.checkpoint.families.qwen3_5.hugging_face import HUGGING_FACE

QWEN3_5 = Family(HUGGING_FACE, GGUF)
