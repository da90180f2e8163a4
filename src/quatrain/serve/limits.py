"""What a server takes at most, apart for `--help`, which imports nothing heavy."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a server takes at most.

    Attributes:
        body_bytes: The size of a request's body.
        prompt_tokens: The length of a prompt; None is what the program's context holds.
        queue: How many requests of one model wait while one is worked off.
        variants: How many programs with emulated defects are loaded beside those of the start.
    """

    body_bytes: int = 1_000_000
    prompt_tokens: int | None = None
    queue: int = 32
    variants: int = 2
