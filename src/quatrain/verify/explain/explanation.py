"""The result of `explain_output`: the cause, the evidence, and all candidates."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Cause = Literal[
    "right", "rounding", "sampling", "scheme", "template", "tokenizer", "defect",
    "right at first", "unknown",
]  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """A computation, and how well it explains the text.

    Attributes:
        id: Its name, such as "right" or the id of a defect.
        cause: The cause that it represents.
        what: What it computes, in words.
        log_likelihood: The log-likelihood of the text, in nats, at the temperature that fits best,
            minus the candidate's penalty for being unlikely a priori.
        tokens: How many tokens were compared; fewer than all if it soon fell too far behind.
        agreeing: How many of them are the most likely ones.
        temperature: The temperature that fits best; None means always the most likely token, apart
            from rounding.
        first_difference: The index, from 0, of the first token that is not the most likely one.
        changes_nothing: Whether it is a defect that does not change the answer to this prompt.
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
    """The explanation of a phone's output.

    Attributes:
        program: The program's path.
        cause: The cause of the output.
        candidate: The `id` of the candidate that fits; None if none does.
        statement: The cause in a sentence.
        evidence: The evidence for it, one line each.
        remedy: What to do; None if nothing is to be done.
        tokens: How many tokens were compared.
        candidates: Everything that was computed, the most likely first.
        notes: Other information.
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
