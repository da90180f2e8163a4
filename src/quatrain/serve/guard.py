"""Checks the API key of each request, and counts the answers."""

import hmac

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quatrain.serve.errors import ApiError, refusal
from quatrain.serve.metrics import Metrics

_OPEN = {"/", "/openapi.json"}  # what can be read without the key
_COUNTED = _OPEN | {"/metrics", "/v1/models", "/v1/completions", "/v1/chat/completions"}
_NO_KEY = refusal(
    ApiError(
        401,
        "the API key is missing or wrong; send the one that the server was started with as "
        "Authorization: Bearer KEY",
        code="invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
    )
)


class Guard:
    """Asks for `api_key`, unless it is None, and counts each answer by address and status."""

    def __init__(self, app: ASGIApp, api_key: str | None, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics
        self._expected = None if api_key is None else api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = str(message["status"])
                self._metrics.requests.labels(_endpoint(scope["path"]), status).inc()
            await send(message)

        app = self._app if self._is_allowed(scope) else _NO_KEY
        await app(scope, receive, counted)

    def _is_allowed(self, scope: Scope) -> bool:
        if self._expected is None or scope["path"] in _OPEN:
            return True
        given = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, key = given.partition(b" ")  # of the scheme RFC 9110 ignores the case
        return scheme.lower() == b"bearer" and hmac.compare_digest(key.lstrip(), self._expected)


def _endpoint(path: str) -> str:
    """`path` as it is counted: what clients make up is one."""
    if path.startswith("/v1/models/"):
        return "/v1/models/{model}"
    return path if path in _COUNTED else "other"
