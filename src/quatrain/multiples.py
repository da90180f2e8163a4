"""Rounding up to a multiple."""


def up_to(count: int, multiple: int) -> int:
    """`count`, or the next larger multiple."""
    return -(-count // multiple) * multiple
