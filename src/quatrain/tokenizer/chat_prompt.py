"""Formats a user's text as a chat prompt, with system message, tools and variables; none of them is
ignored."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quatrain.errors import InputError
from quatrain.tokenizer.chat import Message, names_read, pick
from quatrain.tokenizer.load import Tokenizer

# What is no variable of a template's own, with where it is said.
_SAID_ELSEWHERE = {
    "messages": "by --prompt and --system",
    "tools": "by --tools",
    "add_generation_prompt": "by the program, which always asks for an answer",
}


@dataclass(frozen=True)
class ChatOptions:
    """What a chat prompt holds beside the user's text.

    Attributes:
        system: A message before it, from the role "system", or None.
        tools: What the model may call, each as a JSON schema, or None.
        variables: What the chat template reads besides, such as {"enable_thinking": False}.
        template: The name of one of several chat templates, or None.
    """

    system: str | None = None
    tools: list[dict[str, Any]] | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    template: str | None = None


def chat_prompt(
    tokenizer: Tokenizer,
    text: str,
    options: ChatOptions,
    before: Sequence[tuple[str, str]] = (),
) -> str:
    """The prompt that asks for the answer to `text`, after the turns `before`: what the user said
    and what was answered.

    Raises `InputError` if the model has no such chat template, or the template does not look at
    something in `options`, or gives no text.
    """
    _check_read(tokenizer, options)

    def rendered(messages: list[Message]) -> str:
        return tokenizer.apply_chat(
            messages,
            tools=options.tools,
            variables=options.variables,
            template=options.template,
        )

    said: list[Message] = [
        {"role": role, "content": content}
        for turn in before
        for role, content in zip(("user", "assistant"), turn, strict=True)
    ]
    said.append({"role": "user", "content": text})
    if options.system is not None:
        said.insert(0, {"role": "system", "content": options.system})
    prompt = prompt_of_all(said, rendered, SYSTEM, tokenizer.source, "the prompt")
    empty = [without_text("user")(message) for message in said]
    if text and (not prompt or (empty != said and prompt == _if_any(rendered, empty))):
        raise InputError(
            f"{tokenizer.source}: its chat template leaves out the prompt; leave --chat out, or "
            "use `quatrain run` instead of a chat"
        )
    return prompt


def prompt_of_all(
    messages: list[Message],
    rendered: Callable[[list[Message]], str],
    parts: Mapping[str, Callable[[Message], Message]],
    source: str,
    instead: str,
) -> str:
    """The prompt that `rendered` makes of `messages`.

    Raises `InputError`, naming `source` and where to say it `instead`, where the chat template
    leaves out one of `parts`, each with what gives a message without it.
    """
    prompt = rendered(messages)
    for part, without in parts.items():
        others = [without(message) for message in messages]
        # Its own text: a template that has a default says something else without the message.
        if others != messages and prompt == _if_any(rendered, others):
            raise InputError(
                f"{source}: its chat template leaves out {part}; put it into {instead}"
            )
    return prompt


def _if_any(rendered: Callable[[list[Message]], str], messages: list[Message]) -> str | None:
    """The prompt of `messages`, None if the chat template refuses them."""
    try:
        return rendered(messages)
    except InputError:
        return None


def without_text(role: str) -> Callable[[Message], Message]:
    """Gives a message without its text, if it is one of that role and says something."""

    def without(message: Message) -> Message:
        said = message["role"] == role and message["content"].strip()
        return message | {"content": ""} if said else message

    return without


SYSTEM = {"a system message": without_text("system")}


def variables_read(tokenizer: Tokenizer, template: str | None, has_tools: bool) -> set[str]:
    """What the chat template of that name, or the one that is meant without, reads: "tools" among
    it where it takes them. Raises `InputError` if there is none, or it is damaged."""
    picked = pick(tokenizer.chat_templates, template, has_tools, tokenizer.source)
    return names_read(picked, tokenizer.source)


def _check_read(tokenizer: Tokenizer, options: ChatOptions) -> None:
    """Refuse variables and tools that the template does not read."""
    has_tools, source = options.tools is not None, tokenizer.source
    read = variables_read(tokenizer, options.template, has_tools)
    for name in options.variables:
        if name in _SAID_ELSEWHERE:
            raise InputError(
                f"--template-var {name}: is set {_SAID_ELSEWHERE[name]}; leave the variable out"
            )
        if name not in read:
            others = sorted(read - _SAID_ELSEWHERE.keys())
            known = f"expected one of {', '.join(others)}" if others else "nor any other variable"
            raise InputError(
                f"--template-var {name}: the chat template of {source} does not use it, {known}"
            )
    if has_tools and "tools" not in read:
        raise InputError(
            f"--tools: the chat template of {source} does not support tools; describe them in "
            "--system"
        )
