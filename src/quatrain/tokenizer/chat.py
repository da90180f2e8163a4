"""Renders chat templates (Jinja) as transformers does.

A model has one, or several by name, of which `default` is taken, or `tool_use` if there are tools.
"""

import datetime
import json
from collections.abc import Callable, Mapping
from functools import cache
from itertools import product
from typing import Any

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from quatrain.errors import InputError

# What a template may raise, which is a program of someone else's.
_FAILURES = (
    jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError,
    RecursionError, MemoryError,
)  # fmt: skip
_REASONING = ("reasoning_content", "thinking", "reasoning")  # what a message calls it, this first
_PROBE = "quatrain"  # a text by which a template shows in which form it reads one

Message = dict[str, Any]


def as_read(
    messages: list[Message], rendered: Callable[[list[Message]], str | None]
) -> list[Message]:
    """`messages`, the texts of a role in parts, `[{"type": "text", "text": ...}]`, where a template
    shows them only so: those of multimodal models (SmolVLM, LLaVA-OneVision) may leave out others.

    `rendered`: what the template makes of messages, None if it refuses them.
    """
    roles = dict.fromkeys(str(message.get("role")) for message in messages)
    in_parts = {role for role in roles if _takes_parts(role, rendered)}
    return [_in_parts(one) if str(one.get("role")) in in_parts else one for one in messages]


def _takes_parts(role: str, rendered: Callable[[list[Message]], str | None]) -> bool:
    own, asked = {"role": role, "content": _PROBE}, {"role": "user", "content": "?"}
    # Its own text as it is before in parts; the question beside it may have the other form.
    for parts, otherwise in product((False, True), repeat=2):
        message = _in_parts(own) if parts else own
        question = _in_parts(asked) if parts != otherwise else asked
        said = [message, question] if role == "system" else [question, message]
        if _PROBE in (rendered([message] if role == "user" else said) or ""):
            return parts
    return False


def _in_parts(message: Message) -> Message:
    text = message.get("content")
    if not isinstance(text, str):
        return message
    return message | {"content": [{"type": "text", "text": text}]}


def templates_of(stated: Any) -> dict[str, str]:
    """The templates by name in a `chat_template` field: a text, or several with their names."""
    if isinstance(stated, str):
        return {"default": stated}
    if isinstance(stated, list):
        objects = (entry for entry in stated if isinstance(entry, dict))
        named = [(entry.get("name"), entry.get("template")) for entry in objects]
    else:
        named = [*stated.items()] if isinstance(stated, dict) else []
    return {
        name: template
        for name, template in named
        if isinstance(name, str) and isinstance(template, str)
    }


def pick(templates: Mapping[str, str], name: str | None, tools: bool, source: str) -> str:
    """The template of that `name`, or the one that is meant where it is None.

    Raises `InputError` if there is none, naming those that there are.
    """
    if not templates:
        raise InputError(
            f"{source}: has no chat template in tokenizer_config.json; this is not a chat model, "
            "so leave --chat out"
        )
    names = [name] if name is not None else ["tool_use", "default"][not tools :]
    for wanted in names:
        if wanted in templates:
            return templates[wanted]
    raise InputError(
        f"{source}: has no chat template named {names[-1]!r}, expected one of "
        f"{', '.join(sorted(templates))} as --chat-template"
    )


def names_read(template: str, source: str) -> set[str]:
    """The variables that `template` reads from outside, those that it sets itself left out. Raises
    `InputError` if it is damaged."""
    try:
        return jinja2.meta.find_undeclared_variables(_environment().parse(template))
    except jinja2.TemplateError as error:
        raise InputError(f"{source}: its chat template failed: {error}") from error


def render(
    template: str,
    messages: list[Message],
    variables: Mapping[str, Any],
    source: str,
    tools: list[dict[str, Any]] | None = None,
    add_generation_prompt: bool = True,
) -> str:
    """The prompt for `messages`, ready for the answer unless `add_generation_prompt` is False.

    `variables`: what the template sees besides, such as the texts of special tokens. Raises
    `InputError`, naming `source`, if the template is damaged, reaches for Python or refuses the
    messages.
    """
    given = {
        "documents": None,
        **variables,
        "tools": tools,
        "add_generation_prompt": add_generation_prompt,
    }
    try:
        compiled = _environment().from_string(template)

        def tried(messages: list[Message]) -> str | None:
            try:
                return compiled.render(given | {"messages": messages})
            except _FAILURES:
                return None

        read = as_read([_without_none(message) for message in messages], tried)
        return compiled.render(given | {"messages": read})
    except _FAILURES as error:
        raise InputError(f"{source}: its chat template failed: {error}") from error


def _without_none(message: Message) -> Message:
    """Without fields that are None, of a content that is None without a text, and its reasoning
    under each name that templates read."""
    message = {
        key: "" if value is None else value
        for key, value in message.items()
        if value is not None or key == "content"  # which templates take to be there
    }
    reasoning = next((message[key] for key in _REASONING if key in message), None)
    if reasoning is None:
        return message
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}` around what the model writes; only training looks at where that is."""

    tags = {"generation"}  # noqa: RUF012 (as Jinja declares it)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # A block of its own, as transformers makes it: what is set inside is not set outside.
        return jinja2.nodes.CallBlock(self.call_method("_generated_part"), [], [], body).set_lineno(
            line
        )

    def _generated_part(self, caller: jinja2.runtime.Macro) -> str:
        return caller()


@cache
def _environment() -> jinja2.Environment:
    """As chat templates are written for: whitespace trimmed around blocks, no access to Python."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, "jinja2.ext.loopcontrols"]
    )

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    environment.filters["tojson"] = tojson
    return environment
