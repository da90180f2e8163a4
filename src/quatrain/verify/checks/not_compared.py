"""Lists, for people, what `verify` did not compare with the checkpoint."""

from collections.abc import Mapping, Sequence

import torch

from quatrain.backbone.layers.kv_cache import CachedAttention
from quatrain.backbone.model import Backbone
from quatrain.program import Program
from quatrain.short_lists import ranges
from quatrain.verify.checks.stored_tables import RoundedEmbedding
from quatrain.verify.checks.unrounded import exact_gelu

_BETWEEN = (
    "what is computed between constants and logits: ExecuTorch shows no values there, and the "
    "logits tell of it as far as rounding lets them"
)

_NAMED = 3  # layers with experts that no text is routed to


def not_compared(
    unknown: Sequence[str],
    backbone: Backbone,
    tokens: int,
    between: bool,
    picked: Mapping[int, torch.Tensor],
) -> list[str]:
    """Of a program held against `backbone` over texts of so many `tokens` at most: the `unknown`
    constants, the windows and chunks of attention that no text leaves, embeddings that the program
    rounds once more, GELU that it does not approximate, all operators unless what is `between` was
    compared, and the experts that are not `picked` (by layer, bool [experts])."""
    said = [*([] if between else [_BETWEEN]), *_experts_left(picked)]
    if unknown:
        known = "which the program holds in another form, if at all: the logits alone tell of it"
        said.append(f"{', '.join(unknown)}, {known}")
    said += [
        f"what rounding {name} to int{module.bits} does: the program holds the nearest integers to "
        "the checkpoint's numbers, and the backbone beside it looks up the same; `quatrain "
        "evaluate` measures the loss"
        for name, module in backbone.named_modules()
        if isinstance(module, RoundedEmbedding) and module.bits is not None
    ]
    if any(getattr(module, "activate", None) is exact_gelu for module in backbone.modules()):
        said.append(
            "what exact GELU in place of the model's tanh approximation does, which XNNPACK "
            "computes in programs of other exporters: so did the backbone beside it"
        )
    kinds = {m.attention_window for m in backbone.modules() if isinstance(m, CachedAttention)}
    for kind, size in sorted(kind for kind in kinds if kind is not None):
        if size >= tokens:
            texts = f"the texts have {tokens} tokens at most; a longer --prompt leaves it"
            said.append(f"attention beyond a {kind} of {size} tokens: {texts}")
    return said


def _experts_left(picked: Mapping[int, torch.Tensor]) -> list[str]:
    """Where values are shown each expert is computed with (`compare_layerwise`)."""
    left = {layer: (~experts).nonzero().flatten().tolist() for layer, experts in picked.items()}
    named = [f"{ranges(experts)} of layer {layer}" for layer, experts in left.items() if experts]
    if not named:
        return []
    more = f"; and some of {len(named) - _NAMED} more layers" if len(named) > _NAMED else ""
    return [
        f"experts that no text is routed to, {'; '.join(named[:_NAMED])}{more}: a longer --prompt "
        "reaches more"
    ]


def methods_not_compared(program: Program) -> list[str]:
    """The methods of `program` besides forward that compute something."""
    return [
        f"what its method {name} computes: only forward is run"
        for name, method in program.methods.items()
        if name != "forward" and method.instructions
    ]
