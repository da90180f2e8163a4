"""What `verify` did not hold against the checkpoint, for people."""

from collections.abc import Sequence

from quatrain.backbone.layers.kv_cache import CachedAttention
from quatrain.backbone.model import Backbone

_BETWEEN = (
    "what is computed between constants and logits: ExecuTorch shows no values there, and the "
    "logits tell of it as far as rounding lets them"
)


def not_compared(
    unknown: Sequence[str], backbone: Backbone, tokens: int, shows_values: bool
) -> list[str]:
    """Of a program held against `backbone` over texts of so many `tokens` at most: the `unknown`
    constants, the windows and chunks of attention that no text leaves, and all operators where no
    device `shows_values`."""
    said = [] if shows_values else [_BETWEEN]
    if unknown:
        known = "which the program holds in another form, if at all: the logits alone tell of it"
        said.append(f"{', '.join(unknown)}, {known}")
    kinds = {m.attention_window for m in backbone.modules() if isinstance(m, CachedAttention)}
    for kind, size in sorted(kind for kind in kinds if kind is not None):
        if size >= tokens:
            texts = f"the texts have {tokens} tokens at most; a longer --prompt leaves it"
            said.append(f"attention beyond a {kind} of {size} tokens: {texts}")
    return said
