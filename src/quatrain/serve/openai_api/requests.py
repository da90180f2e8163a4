"""The fields of requests in OpenAI's API: those that are used, and those without effect.

Any other field is refused by name, and so is a value that would change what is written and is not
computed here. Source: https://platform.openai.com/docs/api-reference
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from quatrain.serve.openai_api.messages import Empty, Message, Strict, Tool

_AS_IT_IS = "the logits of the model are not changed"
_TOOLS = "the newer fields are tools and tool_choice"


def _integer_if_whole(value: Any) -> Any:
    """JSON has one kind of number: 1.0 is an integer, too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# Behind the bounds, which would not be in the schema otherwise.
_Whole = BeforeValidator(_integer_if_whole)
One = Annotated[int, Field(ge=1, le=1), _Whole]
Zero = Annotated[float, Field(ge=0, le=0)]
Count = Annotated[int, Field(ge=1), _Whole]
Text = Annotated[str, Field(min_length=1)]
TokenId = Annotated[int, Field(ge=0, lt=2**31), _Whole]


class StreamOptions(Strict):
    """What a stream tells besides."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class TextFormat(Strict):
    """The one form of an answer."""

    type: Literal["text"]


class GenerationRequest(Strict):
    """What both kinds of request hold.

    `top_k`, `min_p` and `repetition_penalty` are not OpenAI's, but known by these names. The fields
    from `n` on change nothing here; what would change something is refused.
    """

    model: str
    max_tokens: Count | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63), _Whole] | None = None
    stop: Text | Annotated[list[Text], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0), _Whole] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None

    n: One | None = Field(None, description="only one answer per request; send several requests")
    frequency_penalty: Zero | None = Field(None, description=_AS_IT_IS)
    presence_penalty: Zero | None = Field(None, description=_AS_IT_IS)
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = Field(
        None, description=_AS_IT_IS
    )
    user: str | None = None

    def stop_strings(self) -> list[str]:
        """What ends an answer."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class CompletionRequest(GenerationRequest):
    """The body of `POST /v1/completions`."""

    prompt: (
        str
        | Annotated[list[TokenId], Field(min_length=1)]
        | Annotated[list[str], Field(min_length=1, max_length=1)]
    ) = Field(description="one prompt per request: a text, or token ids")
    logprobs: Annotated[int, Field(ge=0, le=5), _Whole] | None = None

    best_of: One | None = Field(None, description="only one answer per request")
    echo: Literal[False] | None = Field(
        None, description="the prompt is not repeated in the answer"
    )
    suffix: Annotated[str, Field(max_length=0)] | None = Field(
        None, description="a text is continued, not filled in"
    )

    def text_or_ids(self) -> str | list[int]:
        """The prompt, which may be a list of one text."""
        if isinstance(self.prompt, str):
            return self.prompt
        first = self.prompt[0]
        return first if isinstance(first, str) else [i for i in self.prompt if isinstance(i, int)]


class ChatRequest(GenerationRequest):
    """The body of `POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20), _Whole] | None = None

    functions: Empty | None = Field(None, description=_TOOLS)
    function_call: Literal["none"] | None = Field(None, description=_TOOLS)
    metadata: dict[str, str] | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    parallel_tool_calls: bool | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    response_format: TextFormat | None = Field(
        None, description="constrained formats are not supported"
    )
    safety_identifier: str | None = None
    service_tier: Literal["auto", "default"] | None = None
    store: Literal[False] | None = Field(None, description="nothing is kept")
    tool_choice: Literal["none", "auto"] | None = Field(
        None, description="the model decides whether it calls a tool"
    )
    tools: list[Tool] | None = None

    def offered_tools(self) -> list[dict[str, Any]] | None:
        """The offered tools, in the form of chat templates; None if there are none."""
        if not self.tools or self.tool_choice == "none":
            return None
        return [tool.as_dict() for tool in self.tools]
