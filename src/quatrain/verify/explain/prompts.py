"""The prompts that an app may have built from the question: the right one, and common mistakes.

Each mistake is one that the app's template code or its tokenizer makes; the tokens are those that
the model would have read.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from quatrain.errors import InputError
from quatrain.tokenizer import Tokenizer
from quatrain.tokenizer.chat_prompt import ChatOptions, chat_prompt, variables_read

_ASSISTANT = "You are a helpful assistant."  # what apps write as a system message
_SWITCHES = ("enable_thinking", "thinking", "add_generation_prompt")


@dataclass(frozen=True)
class Prompt:
    """What a model may have read.

    `id` and `what` name it, for machines and for people; `fix` is what an app must do instead;
    `cause` is whose mistake it is, None for the right prompt.
    """

    id: str
    what: str
    fix: str
    tokens: tuple[int, ...]
    cause: Literal["template", "tokenizer"] | None = None


def prompts_of(tokenizer: Tokenizer, text: str, chat: bool, options: ChatOptions) -> list[Prompt]:
    """The right prompt, then each mistake that gives other tokens, none twice.

    Raises `InputError` as `chat_prompt`.
    """
    right = chat_prompt(tokenizer, text, options) if chat else text
    found = [Prompt("as-given", "the prompt as given", "", _ids(tokenizer, right, bos=not chat))]
    mistakes = list(_of_text(tokenizer, text, right, chat, options)) + list(
        _of_tokens(tokenizer, right, found[0].tokens)
    )
    for mistake in mistakes:
        if mistake.tokens and all(mistake.tokens != one.tokens for one in found):
            found.append(mistake)
    return found


def _of_text(
    tokenizer: Tokenizer, text: str, right: str, chat: bool, options: ChatOptions
) -> Iterator[Prompt]:
    if chat:
        yield _template(
            "template-left-out", "the text without the chat template",
            "put the text into the model's chat template", _ids(tokenizer, text),
        )  # fmt: skip
        for id_, what, fix, other in _other_templates(tokenizer, text, right, options):
            yield _template(id_, what, fix, _ids(tokenizer, other, bos=False))
    elif tokenizer.chat_templates and options == ChatOptions():
        put = _or_none(lambda: chat_prompt(tokenizer, text, options))
        if put is not None:
            yield _template(
                "template-applied", "the text in the model's chat template",
                "give the prompt without the chat template; or, if an answer is wanted, explain "
                "with --chat", _ids(tokenizer, put, bos=False),
            )  # fmt: skip
    stripped = right.strip()
    yield Prompt(
        "stripped", "the prompt without the white space around it",
        "do not trim the prompt: its last line break belongs to it",
        _ids(tokenizer, stripped, bos=not chat), "template",
    )  # fmt: skip


def _other_templates(
    tokenizer: Tokenizer, text: str, right: str, options: ChatOptions
) -> Iterator[tuple[str, str, str, str]]:
    """(id, what, fix, the prompt) of each mistake in filling in the chat template."""
    yield (
        "template-doubled", "the prompt put into the chat template twice",
        "fill in the template once: the runner, or the app, does it already",
        chat_prompt(tokenizer, right, options),
    )  # fmt: skip
    fix = (
        "give the system message that --system says"
        if options.system
        else "give no system message, so that the template puts its own, if it has one"
    )
    for id_, what, system in (
        ("system-left-out", "the prompt without its system message", None),
        ("system-empty", "the prompt with an empty system message", ""),
        ("system-assistant", f"the prompt with the system message {_ASSISTANT!r}", _ASSISTANT),
    ):
        other = _or_none(
            lambda system=system: chat_prompt(tokenizer, text, replace(options, system=system))
        )
        if other is not None and system != options.system:
            yield id_, what, fix, other
    bare = _without_system(tokenizer, text, options)
    if options.system is None and bare is not None:
        yield (
            "system-default-left-out",
            "the prompt without the template's own system message",
            "let the template put its own system message",
            bare,
        )
    for variables in _variables(tokenizer, options):
        name, value = next(iter(variables.items()))
        other = _or_none(lambda variables=variables: _rendered(tokenizer, text, options, variables))
        if other is not None:
            said = f"{name}={str(value).lower()}"
            yield (
                f"template-var-{said}", f"the prompt with the template's variable {said}",
                f"fill in the template without {said}", other,
            )  # fmt: skip


def _of_tokens(tokenizer: Tokenizer, right: str, tokens: tuple[int, ...]) -> Iterator[Prompt]:
    bos = tokenizer.bos_id
    if bos is not None and tokens[:1] == (bos,):
        yield Prompt(
            "bos-missing", "the prompt without the token that begins a text",
            f"begin the prompt with token {bos} ({tokenizer.bos_token})", tokens[1:], "tokenizer",
        )  # fmt: skip
    if bos is not None:
        doubled = tokens[:1] == (bos,)
        yield Prompt(
            "bos-doubled" if doubled else "bos-added",
            f"the prompt with {'one more' if doubled else 'a'} token that begins a text",
            f"do not put token {bos} ({tokenizer.bos_token}) before the prompt"
            + (", which has it already" if doubled else ""), (bos, *tokens), "tokenizer",
        )  # fmt: skip
    yield Prompt(
        "special-tokens-as-text", "the prompt's special tokens read as text, letter by letter",
        "let the phone's tokenizer know the special tokens: copy tokenizer.json with its "
        "added_tokens, and encode with special tokens on", _spelled(tokenizer, right), "tokenizer",
    )  # fmt: skip


def _template(id_: str, what: str, fix: str, tokens: tuple[int, ...]) -> Prompt:
    return Prompt(id_, what, fix, tokens, "template")


def _variables(tokenizer: Tokenizer, options: ChatOptions) -> Iterator[dict[str, Any]]:
    """Each switch that the template reads, the other way."""
    read = variables_read(tokenizer, options.template, options.tools is not None)
    for name in _SWITCHES:
        if name in read:
            given = options.variables.get(name, name == "add_generation_prompt")
            for value in (True, False):
                if value != given:
                    yield {name: value}


def _rendered(
    tokenizer: Tokenizer, text: str, options: ChatOptions, variables: dict[str, Any]
) -> str:
    """`variables` may have `add_generation_prompt`, which is no option of a chat."""
    messages = [{"role": "user", "content": text}]
    if options.system is not None:
        messages.insert(0, {"role": "system", "content": options.system})
    given = {**options.variables, **variables}
    answer = bool(given.pop("add_generation_prompt", True))
    return _filled_in(tokenizer, messages, options, given, answer)


def _filled_in(
    tokenizer: Tokenizer,
    messages: list[dict[str, Any]],
    options: ChatOptions,
    variables: Mapping[str, Any],
    answer: bool = True,
) -> str:
    """`messages` in the template, whatever of them that reads; ready for an `answer`, or not."""
    return tokenizer.apply_chat(
        messages,
        tools=options.tools,
        variables=variables,
        template=options.template,
        add_generation_prompt=answer,
    )


def _without_system(tokenizer: Tokenizer, text: str, options: ChatOptions) -> str | None:
    """The prompt without the template's default system message.

    That is the text before the first turn, which a second question does not repeat. None if the
    template has no such text.
    """
    mark = "quatrain-first-question"
    both = [{"role": "user", "content": mark}, {"role": "assistant", "content": mark}]
    all_three = [*both, {"role": "user", "content": text}]
    whole = _or_none(lambda: _filled_in(tokenizer, all_three, options, options.variables))
    before = _or_none(lambda: _filled_in(tokenizer, both, options, options.variables, answer=False))
    if whole is None or before is None or not whole.startswith(before):
        return None
    bare = whole[len(before) :]
    bos = tokenizer.bos_token or ""
    return bare if not bos or bare.startswith(bos) or not before.startswith(bos) else bos + bare


def _or_none(make: Callable[[], str]) -> str | None:
    """What `make` gives; None if the template refuses it."""
    try:
        return make()
    except InputError:
        return None


def _ids(tokenizer: Tokenizer, text: str, bos: bool = True) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text, add_special_tokens=bos))


def _spelled(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    """`text` with its special tokens as ordinary text."""
    before = tokenizer.model.encode_special_tokens
    try:
        tokenizer.model.encode_special_tokens = True
        return _ids(tokenizer, text, bos=False)
    finally:
        tokenizer.model.encode_special_tokens = before
