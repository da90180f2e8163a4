"""The messages of a conversation and the tools that its model may call, as OpenAI's API has them.

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from quatrain.errors import InputError


class Strict(BaseModel):
    """Refuses unknown fields, and values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


Empty = Annotated[list[Any], Field(max_length=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class TextPart(Strict):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Function(Strict):
    """What a model may call; `parameters` is a JSON schema."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: Literal[False] | None = None


class Tool(Strict):
    """A tool, of the one kind."""

    type: Literal["function"]
    function: Function

    def as_dict(self) -> dict[str, Any]:
        """As chat templates take it."""
        return self.model_dump(exclude_none=True)


class CalledFunction(Strict):
    """What a model called; `arguments` is a JSON object as text."""

    name: str
    arguments: str


class ToolCall(Strict):
    """A call that a model wrote."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class Message(Strict):
    """A message of a conversation. The fields that can only be empty are those with which
    OpenAI's client hands an answer back."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[TextPart], Field(min_length=1)] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: Empty | None = None

    def as_dict(self) -> dict[str, Any]:
        """As chat templates take it; "developer" is a newer word for "system".

        Raises `InputError` if a field is there or missing that its role does not go with.
        """
        if self.tool_calls and self.role != "assistant":
            raise InputError(
                f"tool_calls: belong to messages of the assistant, not of the {self.role}"
            )
        if (self.tool_call_id is None) == (self.role == "tool"):
            raise InputError(
                "tool_call_id: belongs to messages with the role 'tool', and names the answered "
                "call"
            )
        if self.content is None and not self.tool_calls:
            raise InputError("content: is missing; only a message with tool_calls may omit it")
        content = self.content or ""
        if not isinstance(content, str):
            content = "".join(part.text for part in content)
        role = "system" if self.role == "developer" else self.role
        said: dict[str, Any] = {"role": role, "content": content}
        if self.tool_calls:
            said["tool_calls"] = [_called(call) for call in self.tool_calls]
        if self.tool_call_id is not None:
            said["tool_call_id"] = self.tool_call_id
        return said


def _called(call: ToolCall) -> dict[str, Any]:
    """Its arguments as an object, which templates write as JSON."""
    try:
        arguments = json.loads(call.function.arguments)
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise InputError(
            f"tool_calls: the arguments of {call.function.name} are "
            f"{call.function.arguments[:60]!r}, expected a JSON object as text"
        )
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id, "type": call.type, "function": function}
