"""The tokens that a request asks a model to continue."""

from typing import Any

from quatrain.errors import InputError
from quatrain.runtime.calls.token_ids import check_token_ids
from quatrain.runtime.generation.generate import check_prompt
from quatrain.serve.errors import ApiError
from quatrain.serve.models.served_models import ServedModel
from quatrain.serve.openai_api.messages import Message
from quatrain.serve.openai_api.requests import ChatRequest, CompletionRequest
from quatrain.tokenizer.chat_prompt import SYSTEM, prompt_of_all, variables_read, without_text


def prompt_tokens(
    model: ServedModel, request: ChatRequest | CompletionRequest, max_prompt_tokens: int | None
) -> list[int]:
    """The ids of the request's prompt or conversation.

    Raises `ApiError` if it is empty, longer than `max_prompt_tokens` or the context, or holds
    what the model does not know.
    """
    field = "messages" if isinstance(request, ChatRequest) else "prompt"
    try:
        tokens = _encoded(model, request)
        check_prompt(tokens, model.context)
        if model.vocab_size is not None:
            from_text = isinstance(request, ChatRequest) or isinstance(request.text_or_ids(), str)
            text_of = model.tokenizer.model.id_to_token if from_text else None
            check_token_ids(tokens, model.vocab_size, text_of)
    except InputError as error:
        # Where the tokenizer lies is no client's business.
        message = str(error).replace(model.tokenizer.source, model.name)
        raise ApiError(400, message, field) from error
    if max_prompt_tokens is not None and len(tokens) > max_prompt_tokens:
        raise ApiError(
            400,
            f"the prompt has {len(tokens)} tokens, but this server accepts at most "
            f"{max_prompt_tokens}; shorten it, or start the server with a larger "
            "--max-prompt-tokens",
            field,
            "context_length_exceeded",
        )
    return tokens


def _encoded(model: ServedModel, request: ChatRequest | CompletionRequest) -> list[int]:
    if isinstance(request, ChatRequest):
        return model.tokenizer.encode(_conversation(model, request), add_special_tokens=False)
    prompt = request.text_or_ids()
    return model.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt


def _conversation(model: ServedModel, request: ChatRequest) -> str:
    """The conversation in the model's chat template, which must not leave out any part of it."""
    if not model.tokenizer.chat_templates:
        raise ApiError(
            400,
            f"model: {model.name} has no chat template, so it is not a chat model; use "
            "/v1/completions, which continues a text",
            "model",
        )
    messages = [_plain(index, message) for index, message in enumerate(request.messages)]
    tools = request.offered_tools()
    if tools and "tools" not in variables_read(model.tokenizer, None, True):
        raise ApiError(
            400,
            f"tools: the chat template of {model.name} does not support tools; describe them in a "
            "system message, and leave this out",
            "tools",
        )

    def rendered(said: list[dict[str, Any]]) -> str:
        return model.tokenizer.apply_chat(said, tools=tools)

    return prompt_of_all(messages, rendered, _PARTS, model.name, "a message of the user")


def _plain(index: int, message: Message) -> dict[str, Any]:
    try:
        return message.as_dict()
    except InputError as error:
        raise InputError(f"messages[{index}].{error}") from error


def _without_calls(message: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in message.items() if key != "tool_calls"}


# What older templates do not look at, and a message without it.
_PARTS = SYSTEM | {
    "the result of a tool": without_text("tool"),
    "the calls of tools": _without_calls,
}
