"""How far attention over a program's whole context is off where a phone sums it in float16.

Prompts of `verify` are too short to show it, and long ones take too long. So the keys and values
that the eager backbone has for a text are repeated until the context is full, and the text's last
queries attend to them: as the phone does, and in float32.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import torch

from quatrain.backbone.model import Backbone
from quatrain.program import VulkanGraph
from quatrain.program.def_use import DefUse
from quatrain.program.half_buffers import in_half_buffer
from quatrain.program.inspect.attentions import AttentionPlace
from quatrain.program.inspect.layer_places import find_layers
from quatrain.runtime.reference.attention import custom_sdpa
from quatrain.runtime.reference.half_attention import custom_sdpa_in_half
from quatrain.tokenizer import Tokenizer
from quatrain.verify.checks.layerwise import TOLERANCE, relative_error
from quatrain.verify.checks.probes import eager_values

_TEXT = Path(__file__).parents[1] / "evaluate" / "evaluate.txt"
_TOKENS, _QUERIES = 512, 8
_LONG = 1024  # positions, from which on a weight may be less than float16 adds to a sum of 1
_HALF_A_UNIT = 2.0**-11


def half_attention_problems(
    graph: VulkanGraph, backbone: Backbone, tokenizer: Tokenizer
) -> list[str]:
    """The layer whose attention is off most, if that is more than rounding by chance."""
    places = list(_half_attentions(graph))
    if not places:
        return []
    vocab_size = backbone.config.vocab_size
    text = tokenizer.encode(_TEXT.read_text(encoding="utf-8"))
    ids = [token for token in text if token < vocab_size] or [0]
    context = places[0][1]
    backbone.reset()
    tokens = torch.tensor([ids[: min(_TOKENS, context)]])
    values = eager_values(backbone, tokens, torch.tensor([0]), (".attend",))
    errors = [(_error(values, layer, context), layer, context) for layer, context in places]
    error, layer, context = max(errors)
    if error <= TOLERANCE["float16"] + _HALF_A_UNIT * math.sqrt(context):
        return []
    return [
        f"attention over the whole context of {context} tokens, which a phone sums in float16, is "
        f"{error:.0%} off in layer {layer}; export again with --activation-dtype fp32, or with a "
        "--max-seq-len of 2048 or less, which sums in float32"
    ]


def _half_attentions(graph: VulkanGraph) -> Iterator[tuple[int, int]]:
    """The layers that attend in float16 buffers, each with the length of its long context."""
    for layer, found in enumerate(find_layers(DefUse(graph))):
        operator = graph.operators[found.operator] if isinstance(found, AttentionPlace) else None
        if operator is None or operator.kind != "sdpa_with_kv_cache":
            continue
        context = graph.tensor(operator.named_args["k_cache"]).shape[1]
        if context > _LONG and in_half_buffer(graph, operator):
            yield layer, context


def _error(values: dict[str, torch.Tensor], layer: int, context: int) -> float:
    q, k, v = (values[f"layers.{layer}.attention.attend.{name}"].half() for name in "qkv")
    times = -(-context // k.shape[1])
    keys, numbers = (x.repeat(1, times, 1, 1)[:, :context] for x in (k, v))
    last = q[:, -_QUERIES:]
    call = (context - last.shape[1], None, True, None)
    exact = custom_sdpa(last.float(), keys.float(), numbers.float(), *call)
    return relative_error(custom_sdpa_in_half(last, keys, numbers, *call), exact)
