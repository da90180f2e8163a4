"""The server's description of itself, made from what its requests are checked by.

Source: https://spec.openapis.org/oas/v3.1.0
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from quatrain.serve.openai_api.requests import ChatRequest, CompletionRequest, GenerationRequest

_REFUSALS = {
    400: "A field is missing, wrong or not used here, or the prompt is too long",
    404: "There is no such model",
    413: "The body is too large",
    415: "The body is not said to be JSON",
    429: "Too many requests wait; Retry-After says when to come back",
    500: "The model could not be computed",
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_MODEL = {
    "type": "object",
    "required": [
        "id",
        "object",
        "created",
        "owned_by",
        "context",
        "device",
        "emulates",
        "can_emulate",
        "as_on",
        "chat",
    ],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "model"},
        "created": {"type": "integer"},
        "owned_by": {"type": "string"},
        "context": {"type": "integer"},
        "device": {"type": "string"},
        "emulates": {"type": ["string", "null"]},
        "can_emulate": {"type": "array", "items": {"type": "string"}},
        "as_on": {"type": ["string", "null"]},
        "chat": {"type": "boolean"},
    },
}
_MODELS = {
    "type": "object",
    "required": ["object", "data"],
    "properties": {
        "object": {"const": "list"},
        "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}},
    },
}
_USAGE = {
    "type": "object",
    "required": ["prompt_tokens", "completion_tokens", "total_tokens"],
    "additionalProperties": {},
}
_ANSWER = {
    "type": "object",
    "required": ["id", "object", "created", "model", "choices", "usage"],
    "properties": {
        "id": {"type": "string"},
        "object": {"enum": ["chat.completion", "text_completion"]},
        "created": {"type": "integer"},
        "model": {"type": "string"},
        "choices": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "type": "object",
                "required": ["index", "finish_reason", "logprobs"],
                "properties": {"finish_reason": {"enum": ["stop", "length", "tool_calls"]}},
            },
        },
        "usage": _USAGE,
    },
}

_EVENT = {
    "type": "object",
    "description": "An event of the stream: a chunk in JSON, and [DONE] at the end",
    "required": ["data"],
    "properties": {"data": {"type": "string"}},
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
        "/metrics": {"get": _text("Counters, as Prometheus reads them", "text/plain")},
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
    content = {media_type: {"schema": {"type": "string"}}}
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
