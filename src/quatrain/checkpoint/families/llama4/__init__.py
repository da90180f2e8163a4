"""The Llama 4 text model: a mixture of experts, layers without rotary embedding, attention in
chunks. Each kind of file describes them differently, so each has a module here."""

from quatrain.checkpoint.families.family import Family
from quatrain.checkpoint.families.llama4.gguf import GGUF
from quatrain.checkpoint.families.llama4.hugging_face import HUGGING_FACE
from quatrain.checkpoint.families.llama4.meta import META

LLAMA4 = Family(HUGGING_FACE, GGUF, META)
