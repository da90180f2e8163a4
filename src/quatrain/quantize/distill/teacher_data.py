"""Training data from the floating-point model: texts that it generates, and its hidden states.
Needs the whole model on a GPU."""

from dataclasses import dataclass

import torch

from quatrain.backbone.build import build_backbone
from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.layers.kv_cache import cached_width
from quatrain.backbone.model import Backbone
from quatrain.checkpoint.float_model import FloatModel
from quatrain.quantize.distill.memory import memory_of
from quatrain.quantize.distill.teacher import in_parts
from quatrain.quantize.generated_text import beginnings, continue_texts
from quatrain.stages import Stages

_SEED = 0
_BYTES_OF_CACHES = 4e9
_MOST_AT_ONCE = 1024


@dataclass(frozen=True)
class TeacherData:
    """`texts` int64 [texts, T], and the model's normed hidden states of them, bfloat16 [texts, T,
    dim]."""

    texts: torch.Tensor
    hidden: torch.Tensor


def teacher_data(
    model: FloatModel, texts: torch.Tensor, tokens: int, device: torch.device, stages: Stages
) -> TeacherData:
    """`texts` int64 [texts, T] and `tokens` tokens that the model generates as continuations of
    pieces of them, with its hidden states of both."""
    length = texts.shape[1]
    backbone = build_backbone(model.config, model.tensors, max_seq_len=length).to(device)
    at_once = texts_at_once(model.config, length, device)
    begin = beginnings(texts, tokens // length, torch.Generator().manual_seed(_SEED))
    generator = torch.Generator(device).manual_seed(_SEED)
    with stages("write texts") as advance:
        written = in_parts(
            begin.to(device), at_once, advance,
            lambda part, hear: continue_texts(backbone, part, length, generator, hear),
        )  # fmt: skip
    texts = torch.cat([texts, written])
    with stages("read the texts in floating point") as advance:
        hidden = in_parts(
            texts.to(device), at_once, advance, lambda part, _: _hidden(backbone, part)
        )
    return TeacherData(texts, hidden)


def _hidden(backbone: Backbone, texts: torch.Tensor) -> torch.Tensor:
    backbone.make_room(len(texts), texts.shape[1], device=texts.device)
    with torch.inference_mode(), torch.device(texts.device):
        return backbone.hidden(texts, 0).bfloat16()


def texts_at_once(config: BackboneConfig, length: int, device: torch.device) -> int:
    """The number of texts whose keys and values take at most an eighth of the memory of
    `device`."""
    room, _ = memory_of(device)
    of_text = 8 * cached_width(config) * length
    return int(min(_MOST_AT_ONCE, max(1, min(room / 8, _BYTES_OF_CACHES) // of_text)))
