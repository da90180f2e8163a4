"""One user's text as a model's chat prompt, with what is said beside it; none of it is ignored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quatrain.errors import InputError
from quatrain.tokenizer.chat import names_read, pick
from quatrain.tokenizer.load import Tokenizer


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

    Raises `InputError` where the model has no such chat template, or the template does not look at
    something in `options`.
    """
    _check_read(tokenizer, options)

    def rendered(messages: list[dict[str, Any]]) -> str:
        return tokenizer.apply_chat(
            messages,
            tools=options.tools,
            variables=options.variables,
            template=options.template,
        )

    said = [
        {"role": role, "content": content}
        for turn in before
        for role, content in zip(("user", "assistant"), turn, strict=True)
    ]
    said.append({"role": "user", "content": text})
    if options.system is None:
        return rendered(said)
    prompt = rendered([{"role": "system", "content": options.system}, *said])
    # The message's own text: a template that has a default says something else without one.
    if options.system.strip() and prompt == rendered([{"role": "system", "content": ""}, *said]):
        raise InputError(
            f"{tokenizer.source}: its chat template leaves out a system message; say it in the "
            "prompt"
        )
    return prompt


def variables_read(tokenizer: Tokenizer, template: str | None, has_tools: bool) -> set[str]:
    """What the chat template of that name, or the one that is meant without, reads: "tools" among
    it where it takes them. Raises `InputError` where there is none, or it is damaged."""
    picked = pick(tokenizer.chat_templates, template, has_tools, tokenizer.source)
    return names_read(picked, tokenizer.source)


def _check_read(tokenizer: Tokenizer, options: ChatOptions) -> None:
    """Refuse variables and tools that the template does not read."""
    has_tools, source = options.tools is not None, tokenizer.source
    read = variables_read(tokenizer, options.template, has_tools)
    for name in options.variables:
        if name not in read:
            others = sorted(read - {"messages", "message", "loop"})
            raise InputError(
                f"--template-var {name}: {source}: its chat template reads no such variable, but "
                f"{', '.join(others) or 'none'}"
            )
    if has_tools and "tools" not in read:
        raise InputError(
            f"--tools: {source}: its chat template takes no tools; describe them in --system"
        )
