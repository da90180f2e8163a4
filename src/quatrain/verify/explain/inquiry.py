"""The state that all explanations of answers to one question share."""

from dataclasses import dataclass

from quatrain.arithmetic import Arithmetic
from quatrain.runtime.calls.token_ids import check_token_ids
from quatrain.runtime.generation.generate import check_prompt
from quatrain.targets.doctor import Finding
from quatrain.tokenizer import Tokenizer
from quatrain.verify.explain.computed_program import ComputedProgram
from quatrain.verify.explain.hypotheses import Hypothesis, hypotheses
from quatrain.verify.explain.likelihood import Rounding
from quatrain.verify.explain.prompts import prompts_of
from quatrain.verify.explain.question import Question


@dataclass(frozen=True)
class Inquiry:
    """A question to a program, and all `ways` to come to an answer, the right one first.

    `findings` are doctor's; `rounding` is what it does to this program's logits.
    """

    tokenizer: Tokenizer
    model: ComputedProgram
    question: Question
    findings: list[Finding]
    ways: list[Hypothesis]
    rounding: Rounding


def inquiry_of(
    tokenizer: Tokenizer,
    model: ComputedProgram,
    question: Question,
    findings: list[Finding],
    own: Arithmetic | None,
) -> Inquiry:
    """`own`: the arithmetic of the phone.

    Raises `InputError` if the prompt has no room in the program's context, or tokens that the model
    has not.
    """
    prompts = prompts_of(tokenizer, question.prompt, question.chat, question.options)
    right, room = prompts[0].tokens, model.context - 2
    check_prompt(right, room)  # a token must follow, and one more has room
    if "get_vocab_size" in model.metadata:
        check_token_ids(right, model.metadata["get_vocab_size"], tokenizer.model.id_to_token)
    prompts = [one for one in prompts if len(one.tokens) <= room]
    others = [one for one in model.arithmetics if one != own]
    wrong = {one.defect: one for one in reversed(findings) if one.kind == "wrong"}
    ways = hypotheses(prompts, own, others, wrong, str(model.path))
    return Inquiry(tokenizer, model, question, findings, ways, Rounding(model.spread(right, own)))
