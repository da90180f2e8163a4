"""Messages whose text comes in parts, `[{"type": "text", "text": ...}]`.

Chat templates of multimodal models (SmolVLM, LLaVA-OneVision) may look for a text there alone,
where transformers' processors put it. Of a plain text they leave it out, without a word.
"""

from collections.abc import Callable
from itertools import product
from typing import Any

Message = dict[str, Any]
_PROBE = "quatrain"


def as_read(
    messages: list[Message], rendered: Callable[[list[Message]], str | None]
) -> list[Message]:
    """`messages`, the texts of a role in parts where a template shows them only so.

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
