"""What `explain_output` gives: the cause, the evidence, and all that was computed beside it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Cause = Literal[
    "right", "rounding", "sampling", "scheme", "template", "tokenizer", "defect",
    "right at first", "unknown",
]  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """One computation, and how well the text fits it.

    Attributes:
        id: Its name, such as "right" or the id of a defect.
        cause: What it would be.
        what: What it computes, in words.
        log_likelihood: Of the text under it, in nats, at the temperature that fits best; less
            what it is unlikelier by before the text is looked at.
        tokens: How many tokens were looked at; fewer than there are where it was soon hopeless.
        agreeing: How many of them are the likeliest ones.
        temperature: That fits best; None: always the likeliest token, but for rounding.
        first_difference: The place, from 0, of the first token that is not the likeliest one.
        changes_nothing: Whether it is a defect that leaves the answer to this prompt as it is.
    """

    id: str
    cause: Cause
    what: str
    log_likelihood: float
    tokens: int
    agreeing: int
    temperature: float | None
    first_difference: int | None
    changes_nothing: bool


@dataclass(frozen=True)
class Explanation:
    """What a phone's output is.

    Attributes:
        program: The program's path.
        cause: What it comes from.
        candidate: The `id` of the candidate that it is, None where none fits.
        statement: The cause in a sentence.
        evidence: What speaks for it, a line each.
        remedy: What to do; None where nothing is to be done.
        tokens: How many tokens were compared.
        candidates: All that was computed, the likeliest first.
        notes: What else there is to know.
    """

    program: Path
    cause: Cause
    candidate: str | None
    statement: str
    evidence: list[str]
    remedy: str | None
    tokens: int
    candidates: list[Candidate]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The explanation as plain data, ready for JSON."""
        return asdict(self)
