"""Explains a phone's output by computing everything that may have gone wrong."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from quatrain.arithmetic import Arithmetic
from quatrain.errors import InputError
from quatrain.program import open_program
from quatrain.runtime.calls.token_ids import check_token_ids
from quatrain.stages import Stages
from quatrain.targets.as_on import arithmetic_as_on
from quatrain.targets.doctor import examine
from quatrain.targets.phones import find_device
from quatrain.targets.runtimes import require_release
from quatrain.tokenizer import Tokenizer, chosen_tokenizer, end_ids
from quatrain.tokenizer.chat_prompt import ChatOptions
from quatrain.verify.explain.computed_program import ComputedProgram
from quatrain.verify.explain.decoding import (
    CHARACTERS_LOST,
    LOST,
    ONE_BY_ONE,
    decoded_otherwise,
    restored,
)
from quatrain.verify.explain.explanation import Explanation
from quatrain.verify.explain.hypotheses import Hypothesis
from quatrain.verify.explain.inquiry import Inquiry, inquiry_of
from quatrain.verify.explain.likelihood import Fit, fit, fit_tokens
from quatrain.verify.explain.phone_output import PhoneOutput
from quatrain.verify.explain.question import question_of
from quatrain.verify.explain.verdict import Computed, explained
from quatrain.verify.explain.written_tokens import WrittenTokens

_MOST = 96  # tokens that are looked at
_HOPELESS = 40.0  # nats behind the best
_CLEARLY = 3.0  # nats by which another way to make a text of tokens has to be likelier
_NEAR = 20.0  # so few that another reading of a text may make it the best


def explain_output(
    output: PhoneOutput,
    program: Path | str,
    prompt: str | None = None,
    *,
    chat: bool = False,
    chat_options: ChatOptions | None = None,
    phone: str | None = None,
    runtime: str | None = None,
    expected: Path | str | None = None,
    tokenizer: Path | str | None = None,
    stages: Stages | None = None,
) -> Explanation:
    """Explain `output`, which a phone wrote with `program`: correct, or caused by which mistake or
    defect.

    For a Vulkan program, prompt and answer are computed on the reference as the phone should have,
    in each other arithmetic, with each defect that can be emulated, and with each common mistake in
    the prompt. For a CPU program, they are computed on ExecuTorch with these mistakes only.

    Args:
        output: What the phone wrote.
        program: A .pte file that maps tokens to logits.
        prompt: The prompt that the phone got; None takes the one of `expected` that fits.
        chat: Whether the prompt should have been put into the chat template.
        chat_options: Other input of that template.
        phone: The id of the phone or its GPU; None means any with integer dot products.
        runtime: The ExecuTorch release on it, such as "1.3"; None means any.
        expected: An expected.json of `quatrain release`.
        tokenizer: A tokenizer.json; None means the one beside the program.
        stages: Receives the progress of each stage.

    Raises:
        InputError: A file or an id is wrong, there is no prompt, or the prompt leaves no space for
            an answer in the program's context.
    """
    stages, path = stages or Stages(), Path(program)
    gpus = None if phone is None else [find_device(phone)[0]]
    if runtime is not None:
        require_release(runtime)
    opened = open_program(path)
    loaded = Tokenizer.load(chosen_tokenizer(tokenizer, path))
    question = question_of(
        output, loaded, path, prompt, chat, chat_options or ChatOptions(),
        None if expected is None else Path(expected), phone,
    )  # fmt: skip
    with stages("load the program"):
        model = ComputedProgram(path)
        found = examine(opened, gpus, runtime) if model.own else []
    as_on = f"{phone}@{runtime}" if phone and runtime else phone
    if as_on is None and question.expected:
        as_on = question.expected.as_on
    inquiry = inquiry_of(loaded, model, question, found, _arithmetic_on_phone(model, as_on))
    found = explain_all([output], inquiry, stages)[0]
    return (
        found
        if model.own
        else replace(found, notes=[*found.notes, *_unused_options(phone, runtime)])
    )


def _unused_options(phone: str | None, runtime: str | None) -> list[str]:
    """A note on what was said of the phone, which of a program for the CPU tells nothing."""
    said = {"--phone": phone, "--runtime": runtime}
    given = " ".join(f"{option} {value}" for option, value in said.items() if value)
    why = "the program is for the CPU, which has no known defects and computes the same everywhere"
    return [f"{given} changes nothing here: {why}"] if given else []


def explain_all(outputs: list[PhoneOutput], inquiry: Inquiry, stages: Stages) -> list[Explanation]:
    """An explanation of each of `outputs`, all of them answers to the question of `inquiry`."""
    readings = [_Reading(output, inquiry) for output in outputs]
    for stage, add in (
        ("compute what may have happened", _Reading.add),
        ("read the text as the likeliest do", _Reading.add_other_readings),
    ):
        with stages(stage) as advance:
            for number, way in enumerate(inquiry.ways):
                _add_all([one for one in readings if one.left_to_do(way)], add, way, inquiry.model)
                advance((number + 1) / len(inquiry.ways))
    return [reading.explained() for reading in readings]


def _add_all(
    readings: list["_Reading"], add: Callable, way: Hypothesis, model: ComputedProgram
) -> None:
    """`add` to each of `readings` what `way` makes of it; its prompt is read once."""
    if not readings:
        return
    row = model.read_prompt(way.prompt, way.arithmetic, way.defect)
    for reading in readings:
        add(reading, way, row)


class _Reading:
    """One output, as it is held against one hypothesis after the other, the right one first."""

    def __init__(self, output: PhoneOutput, inquiry: Inquiry):
        shown, wrong = restored(output)
        model, tokenizer, prompt = inquiry.model, inquiry.tokenizer, inquiry.ways[0].prompt
        most = min(_MOST, model.context - len(prompt) - 1)
        ends = end_ids(tokenizer.eos_ids, model.metadata)
        self._inquiry = inquiry
        lossy = shown.tokens is None and LOST in (shown.text or "")
        mistakes = (None, ONE_BY_ONE, CHARACTERS_LOST) if lossy else (None,)
        self._written, *self._otherwise = (
            WrittenTokens(shown, tokenizer, prompt, ends, most, mistake) for mistake in mistakes
        )
        self._decoding = wrong or decoded_otherwise(output, tokenizer)
        self._fits: dict[str, Fit] = {}
        self._best = -math.inf
        if not self._written.first:
            raise InputError(
                "the phone wrote nothing after the prompt, so there is nothing to explain"
            )
        if "get_vocab_size" in model.metadata:
            check_token_ids(self._written.first, model.metadata["get_vocab_size"])

    def left_to_do(self, way: Hypothesis) -> bool:
        """Whether `way` was not looked at yet and could be the best one, or was, and could be but
        for how a text is read."""
        if way.id not in self._fits:
            return -way.penalty > self._best
        return bool(self._other_readings(way))

    def add(self, way: Hypothesis, row: torch.Tensor) -> None:
        """Compare it with the computation `way`, for whose prompt the model gave `row` [V]. The
        tokenization of the text is the one that makes the right computation, the first, most
        likely."""
        found = self._fit(way, row, self._written)
        while self._otherwise:
            written = self._otherwise.pop(0)
            again = self._fit(way, row, written)
            if again.log_likelihood > found.log_likelihood + _CLEARLY:
                found, self._written = again, written
        self._keep(way, found)

    def _fit(self, way: Hypothesis, row: torch.Tensor, written: WrittenTokens) -> Fit:
        def hopeless(log_likelihood: float) -> bool:
            return log_likelihood - way.penalty < self._best - _HOPELESS

        model, rounding = self._inquiry.model, self._inquiry.rounding
        return fit(model, row, len(way.prompt), written, rounding, hopeless)

    def add_other_readings(self, way: Hypothesis, row: torch.Tensor) -> None:
        """Hold the text against `way` as other hypotheses read it: of two that differ in that
        alone, neither is the likelier one."""
        model, rounding = self._inquiry.model, self._inquiry.rounding
        for tokens in self._other_readings(way):
            found = fit_tokens(model, row, len(way.prompt), tokens, rounding)
            if found.log_likelihood > self._fits[way.id].log_likelihood:
                self._keep(way, found)

    def explained(self) -> Explanation:
        """The verdict."""
        fits = self._fits
        computed = [Computed(way, fits[way.id]) for way in self._inquiry.ways if way.id in fits]
        decoding = self._decoding or self._written.mistake
        return explained(computed, self._written, decoding, self._inquiry)

    def _keep(self, way: Hypothesis, found: Fit) -> None:
        self._fits[way.id] = found
        self._best = max(self._best, found.log_likelihood - way.penalty)

    def _other_readings(self, way: Hypothesis) -> list[list[int]]:
        if not self._is_likely(way):
            return []
        readings = [self._written.first]
        readings += [
            self._fits[one.id].tokens for one in self._inquiry.ways if self._is_likely(one)
        ]
        others = []
        for tokens in readings:
            if tokens != self._fits[way.id].tokens and tokens not in others:
                others.append(tokens)
        return others

    def _is_likely(self, way: Hypothesis) -> bool:
        found = self._fits.get(way.id)
        if found is None:
            return False
        return found.whole and found.log_likelihood - way.penalty >= self._best - _NEAR


def _arithmetic_on_phone(model: ComputedProgram, as_on: str | None) -> Arithmetic | None:
    """The arithmetic that the phone computes the program in."""
    if model.own is None or not model.own.quantizes(2):
        return model.own
    return arithmetic_as_on(as_on)
