"""The evidence for a cause, as lines for people."""

import math

from quatrain.tokenizer import Tokenizer
from quatrain.verify.expected import ExpectedAnswer
from quatrain.verify.explain.likelihood import Fit, Rounding


def agreement(fit: Fit, under: str) -> str:
    """How many tokens are the likeliest ones."""
    return f"{fit.agreeing} of {len(fit.tokens)} tokens are the likeliest ones {under}"


def at_first_difference(right: Fit, tokenizer: Tokenizer) -> str:
    """The first token that is not the right computation's most likely one, and the difference."""
    place = right.first_difference
    assert place is not None
    written, likeliest = (tokenizer.decode([one], False) for one in
                          (right.tokens[place], right.likeliest[place]))  # fmt: skip
    return (
        f"the first token that is not the right one is number {place + 1}: {written!r}, by "
        f"{right.gaps[place]:.2g} nats less likely than {likeliest!r}"
    )


def rounding_said(rounding: Rounding) -> str:
    """What rounding can do."""
    return (
        f"in this program rounding moves a logit by {rounding.spread:.2g} nats, so tokens within "
        f"{rounding.near_tie:.2g} of each other may be swapped"
    )


def fits_only_hot(name: str, temperature: float) -> list[str]:
    """That the best computation, `name`, explains the text at a high temperature alone."""
    return [
        f"{name} explains it best, at a temperature of about {temperature:.2g}, at which nearly "
        "any text is possible"
    ]


def as_likely(names: list[str]) -> list[str]:
    """What the text does not tell from the best."""
    return [f"as likely by this text alone, and rarer: {', '.join(names)}"] if names else []


def next_likeliest(ranked: list[tuple[str, float]]) -> list[str]:
    """How much likelier the first of (name, log likelihood) is than the second."""
    if len(ranked) < 2:
        return []
    (_, best), (name, second) = ranked[:2]
    less = (best - second) / math.log(10)
    return [f"the next likeliest, {name}, is 10^{less:.0f} times less likely"]


def against_expected(
    tokens: list[int], expected: ExpectedAnswer | None, tokenizer: Tokenizer
) -> list[str]:
    """How far the text agrees with expected.json."""
    if expected is None:
        return []
    pairs = list(zip(tokens, expected.tokens, strict=False))
    same = next((place for place, (a, b) in enumerate(pairs) if a != b), len(pairs))
    if same == len(pairs):
        return [f"expected.json has the same {same} tokens"]
    top = expected.top_logits[same]
    written, logits = pairs[same][0], dict(top)
    less = (
        f"{top[0][1] - logits[written]:.2g} nats less likely there" if written in logits
        else "not among the likeliest there"
    )  # fmt: skip
    wanted = tokenizer.decode([expected.tokens[same]], False)
    return [
        f"expected.json has the same first {same} tokens, then {wanted!r}"
        f"; {tokenizer.decode([written], False)!r} is {less}"
    ]


def without_effect(names: list[str]) -> list[str]:
    """The defects that do not change this answer."""
    return [f"on this prompt these change nothing: {', '.join(names)}"] if names else []
