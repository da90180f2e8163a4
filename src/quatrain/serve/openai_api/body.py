"""Reads a request: its size, its type, and then its fields."""

from typing import TypeVar

from pydantic import ValidationError
from starlette.requests import Request

from quatrain.serve.errors import ApiError, of_validation
from quatrain.serve.openai_api.requests import GenerationRequest

Wanted = TypeVar("Wanted", bound=GenerationRequest)


async def read_request(request: Request, kind: type[Wanted], max_bytes: int) -> Wanted:
    """The body as `kind`. Raises `ApiError` if it is no JSON, too large or not such a request.

    Another type of content is refused since a browser sends JSON nowhere without being allowed to,
    but text wherever any page wants it.
    """
    stated = request.headers.get("content-type", "")
    if stated.partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, f"content-type is {stated!r}, expected application/json")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > max_bytes:
            raise ApiError(
                413,
                f"the body has more than {max_bytes} bytes; shorten it, or start the server with a "
                "larger --max-body",
            )
    try:
        return kind.model_validate_json(bytes(body))
    except ValidationError as error:
        raise of_validation(error, kind) from error
