"""Options of commands that format a message with a model's chat template."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quatrain.errors import InputError
from quatrain.text_files import read_text

if TYPE_CHECKING:
    from quatrain.tokenizer.chat_prompt import ChatOptions

Chat = Annotated[
    bool, typer.Option("--chat", help="Put the prompt into the model's chat template.")
]
System = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT", help="For the chat template: a system message before the conversation."
    ),
]
Tools = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="For the chat template: a JSON list of tools that the model may call."
    ),
]
TemplateVar = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="For the chat template: a variable that it reads, such as enable_thinking=false; "
        "may be repeated. The value is JSON, or else a text.",
    ),
]
ChatTemplate = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Which of several chat templates to use."),
]


def chat_options(
    chat: bool,
    system: str | None,
    tools: Path | None,
    template_var: list[str] | None,
    chat_template: str | None,
) -> "ChatOptions":
    """The options as one. Raises `InputError` if one is damaged, or given without `chat`."""
    from quatrain.tokenizer.chat_prompt import ChatOptions

    given = {
        "--system": system,
        "--tools": tools,
        "--template-var": template_var,
        "--chat-template": chat_template,
    }
    for option, value in given.items():
        if value and not chat:
            raise InputError(f"{option} is for a chat template; give --chat with it")
    return ChatOptions(
        system,
        None if tools is None else _tools(tools),
        dict(_variable(stated) for stated in template_var or ()),
        chat_template,
    )


def _tools(file: Path) -> list[dict[str, Any]]:
    try:
        tools = json.loads(read_text(file, "--tools"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"--tools {file}: cannot be read as JSON: {error}") from error
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise InputError(
            f"--tools {file}: expected a JSON list of tools, each an object such as "
            '{"type": "function", "function": {"name": ...}}'
        )
    return tools


def _variable(stated: str) -> tuple[str, Any]:
    name, equals, value = stated.partition("=")
    if not name or not equals:
        raise InputError(f"--template-var {stated}: expected NAME=VALUE")
    # As Python writes them, which would otherwise be texts, and true.
    value = {"True": "true", "False": "false", "None": "null"}.get(value, value)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
