"""The question to the phone: a prompt from the user, or one of expected.json."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from quatrain.errors import InputError
from quatrain.tokenizer import Tokenizer
from quatrain.tokenizer.chat_prompt import ChatOptions
from quatrain.verify.expected import ExpectedAnswer, read_expected
from quatrain.verify.explain.phone_output import PhoneOutput

_ALIKE = 8  # characters that the right answer to one prompt has in common with what was written


@dataclass(frozen=True)
class Question:
    """The question, how it was asked, and the entry for the answer in expected.json, if there is
    one."""

    prompt: str
    chat: bool
    options: ChatOptions
    expected: ExpectedAnswer | None = None


def question_of(
    output: PhoneOutput,
    tokenizer: Tokenizer,
    program: Path,
    prompt: str | None,
    chat: bool,
    options: ChatOptions,
    expected: Path | None,
    phone: str | None,
) -> Question:
    """Raises `InputError` if there is no prompt, `expected` does not say which, or says that it was
    asked otherwise."""
    if expected is None:
        if prompt is None:
            raise InputError(
                "no --prompt: give the prompt that the phone got, or the release's --expected "
                "expected.json, which has the prompts"
            )
        return Question(prompt, chat, options)
    answers = _for_arithmetic_of(_answers(program, expected), phone)
    if prompt is not None:
        alike = [one for one in answers if one.prompt == prompt]
        if not alike:
            raise InputError(
                f"--prompt {prompt!r}: is none of {expected}, which has {_prompts(answers)}; give "
                "one of them, or leave --expected out"
            )
        answers = alike
    answer = _intended_answer(output, tokenizer, answers, expected)
    if options != ChatOptions() or (chat and not answer.chat):
        raise InputError(
            f"{expected}: says that the phone got {answer.prompt!r} "
            f"{'in the' if answer.chat else 'without a'} chat template, without other options; "
            "leave out --chat and its options, or --expected"
        )
    return Question(answer.prompt, answer.chat, options, answer)


def _for_arithmetic_of(answers: list[ExpectedAnswer], phone: str | None) -> list[ExpectedAnswer]:
    """The answers for the arithmetic of `phone`, if there are any."""
    named = [one for one in answers if one.as_on and one.as_on.partition("@")[0] == phone]
    return named or [one for one in answers if one.as_on is None] or answers


def _prompts(answers: list[ExpectedAnswer]) -> str:
    return "; ".join(dict.fromkeys(repr(one.prompt) for one in answers))


def _answers(program: Path, expected: Path) -> list[ExpectedAnswer]:
    programs = read_expected(expected)
    with program.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    for one in programs.values():
        if one.sha256 == digest and one.prompts:
            return one.prompts
    raise InputError(
        f"{program}: its SHA-256 is {digest}, and {expected} is of {', '.join(programs) or 'none'} "
        "with others; give the program that the release wrote beside it, or leave --expected out"
    )


def _intended_answer(
    output: PhoneOutput, tokenizer: Tokenizer, answers: list[ExpectedAnswer], expected: Path
) -> ExpectedAnswer:
    """The answer to the only prompt, or the one that begins as `output` does."""
    if len({one.prompt for one in answers}) == 1:
        return answers[0]
    text = output.text if output.text is not None else tokenizer.decode(output.tokens or [])
    alike = [_alike(one.text.strip(), text.strip()) for one in answers]
    best = max(alike)
    nearest = {one.prompt: one for one, n in zip(answers, alike, strict=True) if n == best}
    if best < _ALIKE or len(nearest) > 1:
        raise InputError(
            f"{expected}: has several prompts, and the phone's output does not begin like exactly "
            f"one of their answers; give its prompt as --prompt: {_prompts(answers)}"
        )
    return next(iter(nearest.values()))


def _alike(first: str, second: str) -> int:
    """How many characters both begin with."""
    pairs = zip(first, second, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
