"""Lists of names and numbers in messages, cut short."""

from collections.abc import Iterable, Sequence


def and_more(items: Sequence[str], shown: int = 1, separator: str = ", ") -> str:
    """The first `shown` of `items`, and how many others there are: "a, b and 3 more"; of items with
    commas, between which another `separator` is, "a; b; and 3 more"."""
    listed = separator.join(items[:shown])
    last = " " if separator == ", " else separator
    return listed if len(items) <= shown else f"{listed}{last}and {len(items) - shown} more"


def ranges(numbers: Iterable[int]) -> str:
    """`numbers`, of which several may be equal, as people write them: "0-3, 5"."""
    distinct = set(numbers)
    firsts = sorted(one for one in distinct if one - 1 not in distinct)
    lasts = sorted(one for one in distinct if one + 1 not in distinct)
    spans = zip(firsts, lasts, strict=True)
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
