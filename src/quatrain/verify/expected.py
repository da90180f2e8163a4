"""The answers of a correct phone: `expected.json`, greedy tokens and the logits that chose them.

    {"format": "quatrain-expected-1",
     "programs": {FILE: {"sha256": HEX, "prompts": [
         {"prompt": TEXT, "chat": BOOL, "as_on": GPU or null, "prompt_tokens": [ID, ...],
          "tokens": [ID, ...], "text": TEXT, "top_logits": [[[ID, LOGIT], ...], ...],
          "input": TEXT}]}}}

`top_logits` has a list for each of `tokens`: the largest finite logits before it, the largest
first. The token that ends a text is not among `tokens`. `as_on` names whose arithmetic it is
(`quatrain.targets.as_on`); a file for phones of several has its prompts once for each.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from quatrain.atomic_files import whole_file
from quatrain.errors import InputError
from quatrain.json_files import read_object, write_json
from quatrain.program import open_program
from quatrain.runtime.generation.generate import generate
from quatrain.runtime.load import is_vulkan, load_runner, require_tokens_to_logits
from quatrain.runtime.runner import Runner, forward_in_parts
from quatrain.targets.as_on import arithmetic_as_on
from quatrain.tokenizer import Tokenizer, chosen_tokenizer, end_ids
from quatrain.tokenizer.chat_prompt import ChatOptions, chat_prompt

FORMAT = "quatrain-expected-1"
_TOP = 5  # logits that are kept of each step
_DIGITS = 4  # after the point; float16 holds fewer


@dataclass(frozen=True)
class ExpectedAnswer:
    """What a program answers to one prompt, each token the most likely one.

    Attributes:
        prompt: The text that was asked.
        chat: Whether it was put into the model's chat template.
        as_on: GPU[@RELEASE] whose arithmetic it is; None: any GPU with integer dot products, or
            the CPU for a program that is the CPU's.
        prompt_tokens: What the model read.
        tokens: What it answered, the end-of-sequence token not among them.
        text: The same as text.
        top_logits: For each of `tokens` the five largest logits that it was chosen by, (id, logit).
        input: The whole text of `prompt_tokens`, for a runner that knows no chat template and puts
            no token before a text.
    """

    prompt: str
    chat: bool
    as_on: str | None
    prompt_tokens: list[int]
    tokens: list[int]
    text: str
    top_logits: list[list[tuple[int, float]]]
    input: str = ""


@dataclass(frozen=True)
class ExpectedProgram:
    """What the program with the digest `sha256` (hexadecimal) answers to each of its prompts."""

    sha256: str
    prompts: list[ExpectedAnswer]


@torch.inference_mode()
def expected_answers(
    program: Path | str,
    prompts: Sequence[str],
    chat: bool = False,
    as_on: str | None = None,
    max_new_tokens: int = 32,
    tokenizer: Path | str | None = None,
    advance: Callable[[float], None] = lambda part: None,
) -> list[ExpectedAnswer]:
    """What `program` answers to each of `prompts` on a phone that computes it right.

    A Vulkan program is computed by the reference, any other by ExecuTorch.

    Args:
        program: A .pte file from tokens to logits.
        prompts: Texts of one token or more.
        chat: Put each into the model's chat template.
        as_on: GPU[@RELEASE] as which 8da4w is computed; None is any with integer dot products.
        max_new_tokens: How many tokens to generate at most.
        tokenizer: A tokenizer.json; None is the one beside the program.
        advance: Called with the part that is done at each token, 0 to 1.

    Raises:
        InputError: If the program or its tokenizer cannot be read, or a prompt is too long.
    """
    opened = open_program(program)
    require_tokens_to_logits(opened.path, opened.metadata, "expected.json")
    loaded = Tokenizer.load(chosen_tokenizer(tokenizer, opened.path))
    device = "reference" if is_vulkan(opened) else "executorch"
    runner = load_runner(opened, device, arithmetic=arithmetic_as_on(as_on))
    noted = RecordingRunner(runner)
    found = []
    for index, prompt in enumerate(prompts):
        whole, ids = asked_tokens(loaded, prompt, chat)
        given = generate(
            noted, ids, context=opened.context, max_new_tokens=max_new_tokens,
            eos_ids=end_ids(loaded.eos_ids, runner.metadata),
            on_token=lambda token, before=index: advance(
                (before + len(noted.top) / max_new_tokens) / len(prompts)
            ),
        )  # fmt: skip
        advance((index + 1) / len(prompts))
        top, text = noted.top[: len(given.tokens)], loaded.decode(given.tokens)
        found.append(
            ExpectedAnswer(prompt, chat, as_on, given.prompt, given.tokens, text, top, whole)
        )
    return found


def write_expected(path: Path, programs: Mapping[str, ExpectedProgram]) -> None:
    """Write `programs`, by the name of their file, as the expected.json `path`."""
    said = {name: asdict(program) for name, program in programs.items()}
    with whole_file(path) as temporary:
        write_json(temporary, {"format": FORMAT, "programs": said})


def read_expected(path: Path) -> dict[str, ExpectedProgram]:
    """What the expected.json `path` says, by the name of each program's file.

    Raises `InputError` if it cannot be read, or is of another format.
    """
    content = read_object(path)
    if content.get("format") != FORMAT:
        raise InputError(
            f"{path}: its format is {content.get('format')!r}, expected {FORMAT!r}: the "
            "expected.json that `quatrain release` writes"
        )
    try:
        return {name: _program(said) for name, said in content["programs"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: is damaged ({type(error).__name__}: {error}); write it again with `quatrain "
            "release`"
        ) from error


class RecordingRunner:
    """A runner that notes the largest logits of each of its outputs."""

    def __init__(self, runner: Runner):
        self.runner = runner
        self.top: list[list[tuple[int, float]]] = []

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor, /) -> torch.Tensor:
        """The runner's logits for `tokens` at `input_pos`."""
        # In parts beneath: one note for each call of what generates.
        logits = forward_in_parts(self.runner, tokens, int(input_pos))
        row = logits.reshape(-1, logits.shape[-1])[-1].double()
        # Stable: of equal ones the first, as argmax takes it.
        values, ids = row.sort(descending=True, stable=True)
        largest = zip(ids[:_TOP].tolist(), values[:_TOP].tolist(), strict=True)
        self.top.append([(i, round(value, _DIGITS)) for i, value in largest if isfinite(value)])
        return logits

    def reset(self) -> None:
        """Forget the context, and what was noted."""
        self.runner.reset()
        self.top = []


def asked_tokens(tokenizer: Tokenizer, prompt: str, chat: bool) -> tuple[str, list[int]]:
    """(what `prompt` is for a runner that adds nothing to it, its tokens)."""
    if chat:
        whole = chat_prompt(tokenizer, prompt, ChatOptions())
        return whole, tokenizer.encode(whole, add_special_tokens=False)
    begun, ids = f"{tokenizer.bos_token or ''}{prompt}", tokenizer.encode(prompt)
    return begun if tokenizer.encode(begun, add_special_tokens=False) == ids else prompt, ids


def _program(said: dict[str, Any]) -> ExpectedProgram:
    return ExpectedProgram(str(said["sha256"]), answers_of(said["prompts"]))


def answers_of(said: Sequence[dict[str, Any]]) -> list[ExpectedAnswer]:
    """Answers from plain data; KeyError, TypeError or ValueError if it is not one."""
    return [_answer(one) for one in said]


def _answer(said: dict[str, Any]) -> ExpectedAnswer:
    return ExpectedAnswer(
        prompt=str(said["prompt"]),
        chat=bool(said["chat"]),
        as_on=said.get("as_on"),
        prompt_tokens=[int(token) for token in said["prompt_tokens"]],
        tokens=[int(token) for token in said["tokens"]],
        text=str(said["text"]),
        top_logits=[[(int(i), float(at)) for i, at in step] for step in said["top_logits"]],
        input=str(said.get("input", said["prompt"])),
    )
