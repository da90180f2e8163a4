"""The hypotheses about what happened on the phone, the correct computation first.

`penalty`, in nats, is how much unlikelier one is before the text is looked at. A text that the
right computation wrote makes another one likelier than that by chance once in e^penalty times, so
the penalties are what keeps a healthy text from being called broken.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from quatrain.arithmetic import (
    VULKAN_ARITHMETIC,
    VULKAN_WITHOUT_DOT_PRODUCTS,
    XNNPACK_ARITHMETIC,
    Arithmetic,
)
from quatrain.runtime.defects import EmulatedDefect
from quatrain.targets.catalogue import load_defects
from quatrain.targets.doctor import Finding
from quatrain.targets.remedy import remedy_text
from quatrain.verify.explain.prompts import Prompt

Cause = Literal["right", "scheme", "template", "tokenizer", "defect"]

_OTHER_ARITHMETIC, _OTHER_PROMPT = 8.0, 12.0
# A defect that doctor finds in this program on this phone, and one that it does not.
_DEFECT_FOUND, _DEFECT_NOT_FOUND = 10.0, 14.0

_ELSEWHERE = (
    "doctor does not find this defect here: the phone runs another file, such as an older export, "
    "or another runtime than was said; compare file digests, or "
)
_COMPUTED_AS = {
    VULKAN_ARITHMETIC.name: (
        "8da4w",
        "as 8da4w: prompts with activations rounded to int8",
        "the phone runs an 8da4w program of these weights: ship this file instead, or explain "
        "with that one",
    ),
    VULKAN_WITHOUT_DOT_PRODUCTS.name: (
        "weight-only",
        "as weight-only: no activation is rounded to int8, in prompts either",
        "nothing is broken: the phone runs the weight-only program, feeds the prompt token by "
        "token, or has a GPU without integer dot products (name it as --phone); compare file "
        "digests if that is not meant",
    ),
    XNNPACK_ARITHMETIC.name: (
        "int8-everywhere",
        "as 8da4w on the CPU: every activation rounded to int8, in decode too",
        "the phone runs the XNNPACK program of these weights: ship this file, or explain with "
        "that one",
    ),
}


@dataclass(frozen=True)
class Hypothesis:
    """One way to compute an answer: the `prompt` that is read, how the program is computed, and
    the `defect` that strikes it. `what` and `fix` are for people."""

    id: str
    cause: Cause
    what: str
    fix: str
    prompt: tuple[int, ...]
    arithmetic: Arithmetic | None
    defect: EmulatedDefect | None = None
    penalty: float = 0.0


def hypotheses(
    prompts: Sequence[Prompt],
    own: Arithmetic | None,
    others: Sequence[Arithmetic],
    findings: Mapping[str, Finding],
    model: str,
) -> list[Hypothesis]:
    """The right one, of the first of `prompts` in the arithmetic `own`, then all others.

    `findings` are doctor's, by defect, for the program that remedies call `model`.
    """
    right = prompts[0].tokens
    found = [Hypothesis("right", "right", "the right computation", "", right, own)]
    for arithmetic in others:
        name, what, fix = _COMPUTED_AS[arithmetic.name]
        found.append(
            Hypothesis(name, "scheme", what, fix, right, arithmetic, penalty=_OTHER_ARITHMETIC)
        )
    if own is not None:
        found += _with_defects(right, findings, model, own)
    for prompt in prompts[1:]:
        found.append(
            Hypothesis(
                prompt.id, prompt.cause or "template", prompt.what, prompt.fix, prompt.tokens, own,
                penalty=_OTHER_PROMPT,
            )
        )  # fmt: skip
    return found


def _with_defects(
    prompt: tuple[int, ...], findings: Mapping[str, Finding], model: str, own: Arithmetic
) -> Iterator[Hypothesis]:
    catalogue = {defect.id: defect for defect in load_defects()}
    # On a GPU or in a program that quantizes nothing the defect is another file's.
    arithmetic = own if own.quantizes(2) else VULKAN_ARITHMETIC
    for defect in EmulatedDefect:
        finding = findings.get(defect)
        fix = (
            finding.remedy if finding else _ELSEWHERE + remedy_text(catalogue[defect].remedy, model)
        )
        penalty = _DEFECT_FOUND if finding else _DEFECT_NOT_FOUND
        what = f"{defect}: {defect.effect}"
        yield Hypothesis(defect.value, "defect", what, fix, prompt, arithmetic, defect, penalty)
