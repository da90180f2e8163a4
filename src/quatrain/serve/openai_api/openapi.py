"""The OpenAPI description of the server, made from the classes that check requests.

Source: https://spec.openapis.org/oas/v3.1.0
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from quatrain.serve.openai_api.requests import ChatRequest, CompletionRequest, GenerationRequest

_REFUSALS = {
    400: "A field is missing, wrong or not supported, or the prompt is too long",
    404: "There is no such model",
    413: "The body is too large",
    415: "The content type is not application/json",
    429: "Too many requests are waiting; Retry-After says when to try again",
    500: "The model could not compute an answer",
}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object that has all of these."""
    return {"type": "object", "required": list(properties), "properties": properties}


_TEXT, _WHOLE, _TEXT_OR_NULL = {"type": "string"}, {"type": "integer"}, {"type": ["string", "null"]}
_ERROR = _object(error=_object(message=_TEXT, type=_TEXT, param=_TEXT_OR_NULL, code=_TEXT_OR_NULL))
_MODEL = _object(
    id=_TEXT,
    object={"const": "model"},
    created=_WHOLE,
    owned_by=_TEXT,
    context=_WHOLE,
    device=_TEXT,
    emulates=_TEXT_OR_NULL,
    can_emulate={"type": "array", "items": _TEXT},
    as_on=_TEXT_OR_NULL,
    chat={"type": "boolean"},
)
_MODELS = _object(
    object={"const": "list"},
    data={"type": "array", "items": {"$ref": "#/components/schemas/Model"}},
)
_USAGE = {
    "type": "object",
    "required": ["prompt_tokens", "completion_tokens", "total_tokens"],
    "additionalProperties": {},
}
_CHOICE = {
    "type": "object",
    "required": ["index", "finish_reason", "logprobs"],
    "properties": {"finish_reason": {"enum": ["stop", "length", "tool_calls"]}},
}
_ANSWER = _object(
    id=_TEXT,
    object={"enum": ["chat.completion", "text_completion"]},
    created=_WHOLE,
    model=_TEXT,
    choices={"type": "array", "minItems": 1, "maxItems": 1, "items": _CHOICE},
    usage=_USAGE,
)
_EVENT = _object(data=_TEXT) | {
    "description": "An event of the stream: a chunk in JSON, and [DONE] at the end"
}


def openapi(models: Sequence[str], with_key: bool) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a server of `models`, by name, which asks for a key if
    `with_key`."""
    schemas = {"Error": _ERROR, "Model": _MODEL, "Models": _MODELS, "Answer": _ANSWER}
    one = {"name": "model", "in": "path", "required": True, "schema": _names(models)}
    paths = {
        "/v1/models": {"get": _get("What can be asked", "Models")},
        "/v1/models/{model}": {
            "get": _get("One model", "Model", 404),
            "parameters": [one],
        },
        "/v1/completions": {"post": _post("Continue a text", CompletionRequest, models, schemas)},
        "/v1/chat/completions": {
            "post": _post("Answer a conversation", ChatRequest, models, schemas)
        },
        "/metrics": {"get": _text("Counters, in Prometheus' format", "text/plain")},
    }
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Quatrain", "version": version("quatrain")},
        "paths": paths,
        "components": {"schemas": schemas},
    }
    return _asking_for_key(document) if with_key else document


def _post(
    summary: str,
    request: type[GenerationRequest],
    models: Sequence[str],
    schemas: dict[str, Any],
) -> dict[str, Any]:
    schema = request.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= schema.pop("$defs", {})
    schema["properties"]["model"] = _names(models)
    schemas[request.__name__] = schema
    answer = _json("Answer", "The answer; with stream: true, a stream of chunks")
    answer["content"]["text/event-stream"] = {"schema": _EVENT}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": _content(request.__name__)},
        "responses": {"200": answer, **_refusals(*_REFUSALS)},
    }


def _get(summary: str, schema: str, *refusals: int) -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {"200": _json(schema, summary), **_refusals(*refusals)},
    }


def _text(summary: str, media_type: str) -> dict[str, Any]:
    content = {media_type: {"schema": _TEXT}}
    return {
        "summary": summary,
        "responses": {"200": {"description": summary, "content": content}},
    }


def _refusals(*statuses: int) -> dict[str, Any]:
    return {str(status): _json("Error", _REFUSALS[status]) for status in statuses}


def _json(schema: str, description: str) -> dict[str, Any]:
    return {"description": description, "content": _content(schema)}


def _content(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _names(models: Sequence[str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(models)}


def _asking_for_key(document: dict[str, Any]) -> dict[str, Any]:
    for path in document["paths"].values():
        for operation in (path[method] for method in ("get", "post") if method in path):
            operation["responses"]["401"] = _json("Error", "The API key is missing or wrong")
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return document | {"security": [{"key": []}]}
