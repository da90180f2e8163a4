"""Finds tool calls in generated text, in the only supported format.

    <tool_call>
    {"name": NAME, "arguments": {...}}
    </tool_call>

It is that of Hermes, Qwen 2.5 and 3, and others whose chat template asks for it.
Source: https://github.com/NousResearch/Hermes-Function-Calling
"""

import json
from typing import Any

from quatrain.text_files import is_utf8

BEGIN, _END = "<tool_call>", "</tool_call>"
Call = tuple[str, str]  # the function's name, and its arguments as JSON


class ToolCallReader:
    """Passes a text on up to its first call, and holds back what may become one."""

    def __init__(self) -> None:
        self._held = ""

    def push(self, text: str) -> str:
        """The part of `text`, and of what was held back, that cannot belong to a call."""
        self._held += text
        at = self._held.find(BEGIN)
        end = at if at >= 0 else len(self._held) - self._beginning()
        shown, self._held = self._held[:end], self._held[end:]
        return shown

    def finish(self) -> tuple[str, list[Call]]:
        """(the remaining text, the calls); if something other than whole calls follows the first
        one, all of it is text."""
        calls = calls_in(self._held)
        return (self._held, []) if calls is None else ("", calls)

    def _beginning(self) -> int:
        """How many characters at the end are the longest beginning of a call."""
        lengths = range(len(BEGIN) - 1, 0, -1)
        return next((n for n in lengths if self._held.endswith(BEGIN[:n])), 0)


def calls_in(text: str) -> list[Call] | None:
    """The calls that `text` consists of; None if it is anything else."""
    found: list[Call] = []
    rest = text.strip()
    while rest.startswith(BEGIN):
        written = rest.removeprefix(BEGIN).lstrip()
        try:
            said, end = json.JSONDecoder().raw_decode(written)
        except (ValueError, RecursionError):
            return None
        call, rest = _call(said), written[end:].lstrip()
        if call is None or not rest.startswith(_END):
            return None
        found.append(call)
        rest = rest.removeprefix(_END).lstrip()
    return None if rest or not found else found


def _call(said: Any) -> Call | None:
    if not isinstance(said, dict) or not isinstance(said.get("name"), str):
        return None
    arguments = said.get("arguments", {})
    if not isinstance(arguments, dict):
        return None
    name, written = said["name"], json.dumps(arguments, ensure_ascii=False)
    return (name, written) if is_utf8(name + written) else None  # an answer could not hold it
