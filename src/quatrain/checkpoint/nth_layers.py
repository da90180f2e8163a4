"""Models in which every n-th layer differs from the others, as formats count them."""

FULL, SLIDING = "full_attention", "sliding_attention"


def is_nth(index: int, interval: int | None) -> bool:
    """Whether layer `index` is one of every `interval`-th."""
    return interval is not None and (index + 1) % interval == 0


def full_every(interval: int | None, layers: int, other: str = SLIDING) -> list[str]:
    """The layer_types of a model in which every `interval`-th layer attends to all tokens, and all
    others have a window, or are of the kind `other`."""
    return [FULL if is_nth(index, interval) else other for index in range(layers)]
