"""Chat templates: the Jinja that turns messages into a model's prompt."""

import json
from typing import Any

import jinja2
import jinja2.sandbox

from quatrain.errors import InputError


def template_of(config: dict[str, Any]) -> str | None:
    """The chat template in a tokenizer_config.json, or of several named ones the default."""
    template = config.get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry for entry in template if isinstance(entry, dict)}
        template = named.get("default", {}).get("template")
    return template if isinstance(template, str) else None


def render(
    template: str,
    messages: list[dict[str, Any]],
    bos_token: str | None,
    eos_token: str | None,
    source: str,
) -> str:
    """The prompt for `messages`, ready for the answer.

    Raises `InputError`, naming `source`, where the template is damaged, reaches for Python or
    refuses the messages.
    """
    try:
        return (
            _environment()
            .from_string(template)
            .render(
                messages=messages,
                add_generation_prompt=True,
                bos_token=bos_token or "",
                eos_token=eos_token or "",
            )
        )
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        raise InputError(f"{source}: its chat template failed: {error}") from error


def _environment() -> jinja2.Environment:
    """As chat templates are written for: whitespace trimmed around blocks, no access to Python."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment.globals["raise_exception"] = raise_exception
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(
        value, ensure_ascii=False, indent=indent
    )
    return environment
