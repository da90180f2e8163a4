"""Numbers of bytes, for people."""


def human_bytes(count: int) -> str:
    """`count` bytes as text in decimal units: 93_500_000 is '93.5 MB'."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"
