"""What a client did wrong, in the shape in which OpenAI's API says it."""

import re
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

_TYPES = {401: "authentication_error", 429: "rate_limit_error"}
LEFT = 499  # nginx's status for a client that closed its connection; nobody reads it
_SHOWN = 60  # characters of what was found
_PLAIN = re.compile(r"[\w-]{1,60}", re.ASCII)


class ApiError(Exception):
    """A request that is refused.

    Attributes:
        status: The HTTP status, from 400 on.
        message: What was found, what was expected, what to do.
        param: The field of the request that is wrong, or None.
        code: What programs know the error by, or None.
        headers: Of the answer, such as `Retry-After`.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message = status, message
        self.param, self.code, self.headers = param, code, headers


def error_body(
    status: int, message: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The JSON object of an error. Source: https://platform.openai.com/docs/guides/error-codes"""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def too_busy(message: str, seconds: int) -> ApiError:
    """Why a request is not taken now, and when to come back."""
    headers = {"Retry-After": str(seconds)}
    return ApiError(429, f"{message}; try again in {seconds} s", code="queue_full", headers=headers)


def refusal(error: ApiError) -> JSONResponse:
    """The answer that says `error`."""
    body = error_body(error.status, error.message, error.param, error.code)
    return JSONResponse(body, error.status, error.headers)


def refused(request: Request, error: Exception) -> JSONResponse:
    """The answer to a request that raised an `ApiError`."""
    assert isinstance(error, ApiError)
    return refusal(error)


def not_computable(request: Request, error: Exception) -> JSONResponse:
    """The answer where a model does not take what it was asked for."""
    return refusal(ApiError(400, str(error)))


def left(request: Request, error: Exception) -> Response:
    """What nobody reads: the client closed its connection before its request was whole."""
    return Response(status_code=LEFT)


def no_such_page(request: Request, error: Exception) -> JSONResponse:
    """The answer to a request for what is not there, or by a method that it does not take."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}; /openapi.json lists what is"
    return JSONResponse(error_body(error.status_code, message), error.status_code, error.headers)


def failed(request: Request, error: Exception) -> JSONResponse:
    """The answer where Quatrain itself failed."""
    return JSONResponse(error_body(500, f"{type(error).__name__}: {error}"), 500)


def of_validation(error: ValidationError, kind: type[BaseModel]) -> ApiError:
    """What is wrong with a request of that `kind`, by the name of the first field that is."""
    found = error.errors(include_url=False, include_context=False)
    field = found[0]["loc"][:1]
    if found[0]["type"] == "json_invalid" or not field:
        return ApiError(400, f"the body is not a valid request: {found[0]['msg']}")
    said = max((one for one in found if one["loc"][:1] == field), key=_telling)
    path = _path(said["loc"])
    if said["type"] == "extra_forbidden":
        path = _path(said["loc"][:-1], name=str(said["loc"][-1]))
        message = f"{path}: is not supported here; leave it out (see docs/serve.md)"
    elif said["type"] == "missing":
        message = f"{path}: is missing"
    else:
        message = f"{path}: {said['msg']}, found {_short(said['input'])}"
    stated = kind.model_fields.get(str(field[0]))
    if stated and stated.description:
        message += f"; {stated.description}"
    return ApiError(400, message, path)


def _telling(error: ErrorDetails) -> tuple[bool, int]:
    """How much an error tells about a value that could be of several types: a wrong type tells
    least, an error deep inside it most."""
    return not error["type"].endswith("_type"), len(error["loc"])


def _path(location: tuple[int | str, ...], name: str | None = None) -> str:
    """`messages[0].content`; which type was tried is no part of it.

    `name`: that of a field which a client made up, quoted unless it is a plain word.
    """
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and part not in ("str", "int", "float", "bool"):
            path += f".{part}" if path else part
    if name is None:
        return path
    shown = name if _PLAIN.fullmatch(name) else _short(name)
    return f"{path}.{shown}" if path else shown


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
