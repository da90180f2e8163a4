"""The tokens that a request asks a model to continue."""

from quatrain.errors import InputError
from quatrain.runtime.generate import check_prompt
from quatrain.runtime.token_ids import check_token_ids
from quatrain.serve.errors import ApiError
from quatrain.serve.models import ServedModel
from quatrain.serve.requests import ChatRequest, CompletionRequest


def prompt_tokens(
    model: ServedModel, request: ChatRequest | CompletionRequest, max_prompt_tokens: int | None
) -> list[int]:
    """The ids of the request's prompt or conversation.

    Raises `ApiError` where it is empty, longer than `max_prompt_tokens` or the context, or holds
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
        raise ApiError(400, str(error), field) from error
    if max_prompt_tokens is not None and len(tokens) > max_prompt_tokens:
        raise ApiError(
            400,
            f"the prompt has {len(tokens)} tokens, this server takes {max_prompt_tokens}; shorten "
            "it, or start the server with a larger --max-prompt-tokens",
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
    """The conversation in the model's chat template."""
    messages = [message.as_dict() for message in request.messages]
    prompt = model.tokenizer.apply_chat(messages)
    said = [one for one in messages if one["role"] == "system" and one["content"].strip()]
    if said:
        unsaid = [one | {"content": ""} if one in said else one for one in messages]
        # Its own text: a template that has a default says something else without the message.
        if prompt == model.tokenizer.apply_chat(unsaid):
            raise InputError(
                f"{model.name}: its chat template leaves out a system message; say it in the first "
                "message of the user"
            )
    return prompt
