"""Chooses the computation that explains a phone's output."""

import math
from dataclasses import dataclass

import torch

from quatrain.verify.explain.decoding import LOST, DecodingMistake
from quatrain.verify.explain.evidence import (
    against_expected,
    agreement,
    as_likely,
    at_first_difference,
    fits_only_hot,
    next_likeliest,
    rounding_said,
    without_effect,
)
from quatrain.verify.explain.explanation import Candidate, Cause, Explanation
from quatrain.verify.explain.hypotheses import Hypothesis
from quatrain.verify.explain.inquiry import Inquiry
from quatrain.verify.explain.likelihood import Fit
from quatrain.verify.explain.null_model import null_logs, right_at_first
from quatrain.verify.explain.written_tokens import WrittenTokens

_RIGHT = "of the right computation"
_NOT_TOLD = 1.0  # nats
_SAME_LOGITS = 1e-5  # nats: but for the order of sums
_HOTTEST = 1.25  # the temperature above which nearly any text fits; hardly an app has such


@dataclass(frozen=True)
class Computed:
    """A hypothesis, and how the output fits it."""

    way: Hypothesis
    fit: Fit

    @property
    def log_likelihood(self) -> float:
        """In nats, less the hypothesis' penalty."""
        return self.fit.log_likelihood - self.way.penalty

    @property
    def is_hot(self) -> bool:
        """Whether it fits only at a temperature at which nearly any text does."""
        return not self.fit.greedy and self.fit.temperature > _HOTTEST


def explained(
    computed: list[Computed],
    written: WrittenTokens,
    decoding: DecodingMistake | None,
    inquiry: Inquiry,
) -> Explanation:
    """The verdict on what was `written`; `computed` begins with the right computation, `decoding`
    says what is wrong with how ids became text."""
    right = computed[0]
    ranked = sorted(computed, key=lambda one: (-one.log_likelihood, one.way.penalty))
    best = ranked[0]
    cause, count = cause_of(best, right, len(inquiry.tokenizer.model.get_vocab()))
    if decoding and cause in ("right", "rounding", "sampling"):
        cause = "tokenizer"
    unknown = cause in ("unknown", "right at first")
    return Explanation(
        program=inquiry.model.path,
        cause=cause,
        candidate=None if unknown else best.way.id,
        statement=_statement(cause, best, count, decoding),
        evidence=_evidence(cause, best, right, ranked, inquiry),
        remedy=_fix(cause, best, decoding, inquiry),
        tokens=len(right.fit.tokens),
        candidates=[_candidate(one, _changes_nothing(one, computed)) for one in ranked],
        notes=_notes(written, computed, inquiry),
    )


def cause_of(best: Computed, right: Computed, vocab_size: int) -> tuple[Cause, int]:
    """(the cause, how many tokens are right where it is that only the first are)."""
    unrelated = sum(null_logs(right.fit.tokens, vocab_size))
    count, parted = right_at_first(right.fit, vocab_size)
    if best.is_hot or max(unrelated, parted) > best.log_likelihood:
        return ("right at first", count) if parted > unrelated else ("unknown", 0)
    if best.way.cause != "right":
        return best.way.cause, 0
    if best.fit.greedy:
        return ("right" if best.fit.first_difference is None else "rounding"), 0
    return "sampling", 0


def _statement(cause: Cause, best: Computed, count: int, decoding: DecodingMistake | None) -> str:
    fit, way = best.fit, best.way
    chosen = "" if fit.greedy else f", sampled at a temperature of about {fit.temperature:.2g}"
    if cause == "tokenizer" and way.cause == "right" and decoding:
        return f"The tokens are right, the text is not: {decoding.what}."
    if cause == "right":
        return "It is the right output: each token is the one that the program computes."
    if cause == "rounding":
        place = (fit.first_difference or 0) + 1
        return f"It is the right output up to token {place}, and from there on within rounding."
    if cause == "sampling":
        return (
            f"It is the right computation's output{chosen}: the likeliest token was not always "
            "taken."
        )
    if cause == "right at first":
        return f"It is the right output up to token {count}, then something else."
    if cause == "unknown":
        return "It is nothing that can be computed here."
    kind = {"scheme": "another arithmetic's", "template": "another prompt's",
            "tokenizer": "another tokenization's", "defect": "a known defect's"}[cause]  # fmt: skip
    return f"It is {kind} output: {way.what}{chosen}."


def _evidence(
    cause: Cause, best: Computed, right: Computed, ranked: list[Computed], inquiry: Inquiry
) -> list[str]:
    tokenizer, lines = inquiry.tokenizer, []
    if cause not in ("unknown", "right at first"):
        lines.append(agreement(best.fit, _RIGHT if best is right else f"under {best.way.id}"))
    if best is not right or cause in ("unknown", "right at first"):
        lines.append(agreement(right.fit, _RIGHT))
    if right.fit.first_difference is not None:
        lines.append(at_first_difference(right.fit, tokenizer))
        lines.append(rounding_said(inquiry.rounding))
    if cause == "unknown":
        lines += fits_only_hot(best.way.id, best.fit.temperature) if best.is_hot else []
    else:
        alike = [one for one in ranked[1:] if _is_as_likely(one.fit, best.fit)]
        lines += as_likely([one.way.id for one in alike if not _computes_same(one.fit, best.fit)])
        others = [one for one in ranked[1:] if one not in alike]
        lines += next_likeliest([(one.way.id, one.log_likelihood) for one in [best, *others]])
    lines += against_expected(right.fit.tokens, inquiry.question.expected, tokenizer)
    return lines


def _fix(
    cause: Cause, best: Computed, decoding: DecodingMistake | None, inquiry: Inquiry
) -> str | None:
    if cause in ("right", "rounding"):
        return None
    if cause == "sampling":
        return "nothing is broken; set the temperature to 0 to have the likeliest tokens"
    if cause == "tokenizer" and decoding and best.way.cause == "right":
        own = f"give the phone this program's own tokenizer: {inquiry.tokenizer.source}"
        return decoding.fix or own
    if cause in ("unknown", "right at first"):
        applying = [one for one in inquiry.findings if one.applies and one.kind == "wrong"]
        return "; ".join(str(one) for one in applying) or None
    return best.way.fix


def _notes(written: WrittenTokens, computed: list[Computed], inquiry: Inquiry) -> list[str]:
    notes = without_effect([one.way.id for one in computed if _changes_nothing(one, computed)])
    if written.goes_on:
        ends = ", ".join(str(one) for one in inquiry.tokenizer.eos_ids)
        notes.append(
            "the phone went on after a token that ends a text; give its runner the end tokens "
            f"{ends}"
        )
    if written.guessed and computed[0].fit.first_difference is not None:
        notes.append(
            f"the text has {LOST} in place of bytes that are not a character: the tokens there "
            "are guessed; give the phone's token ids for certainty"
        )
    if written.cut:
        notes.append(f"only the first {len(written.first)} tokens were looked at")
    return notes


def _candidate(one: Computed, changes_nothing: bool) -> Candidate:
    fit = one.fit
    likelihood = one.log_likelihood
    return Candidate(
        id=one.way.id,
        cause=one.way.cause,
        what=one.way.what,
        log_likelihood=likelihood if math.isfinite(likelihood) else -math.inf,
        tokens=len(fit.tokens),
        agreeing=fit.agreeing,
        temperature=None if fit.greedy else fit.temperature,
        first_difference=fit.first_difference,
        changes_nothing=changes_nothing,
    )


def _changes_nothing(one: Computed, computed: list[Computed]) -> bool:
    """Whether the defect of `one` leaves all as it is without, in the same arithmetic."""
    return one.way.defect is not None and any(
        _computes_same(one.fit, other.fit)
        for other in computed
        if other.way.defect is None
        and (other.way.prompt, other.way.arithmetic) == (one.way.prompt, one.way.arithmetic)
    )


def _is_as_likely(fit: Fit, best: Fit) -> bool:
    """Whether the text alone does not tell it from the best one."""
    return fit.whole and fit.log_likelihood >= best.log_likelihood - _NOT_TOLD


def _computes_same(fit: Fit, right: Fit) -> bool:
    """Whether it gives the right computation's logits, after the prompt and for each token."""
    if fit.tokens != right.tokens:
        return False
    largest = (fit.first_row - right.first_row).abs().max()
    logs = torch.stack(fit.logs) - torch.stack(right.logs)
    return bool(largest <= _SAME_LOGITS) and bool(logs[:, -1].abs().max() <= _SAME_LOGITS)
