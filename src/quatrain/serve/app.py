"""The server as an ASGI application."""

import asyncio
import hmac
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quatrain.errors import InputError
from quatrain.serve.errors import (
    ApiError,
    failed,
    left,
    no_such_page,
    not_computable,
    refusal,
    refused,
)
from quatrain.serve.limits import Limits
from quatrain.serve.metrics import Metrics
from quatrain.serve.models.served_models import ServedModel
from quatrain.serve.models.workers import Workers
from quatrain.serve.openai_api.endpoints import Endpoints


def build_app(models: Sequence[ServedModel], limits: Limits, api_key: str | None = None) -> ASGIApp:
    """The addresses of docs/serve.md over `models`, whose threads end with the application.

    `api_key`: what clients have to send, or None for no key.
    """
    metrics = Metrics()
    workers = Workers(models, limits, metrics)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        workers.stop()

    endpoints = Endpoints(workers, limits, metrics, with_key=api_key is not None)
    app = Starlette(
        routes=endpoints.routes(),
        exception_handlers={
            ApiError: refused,
            InputError: not_computable,
            HTTPException: no_such_page,
            ClientDisconnect: left,
            Exception: failed,
        },
        lifespan=lifespan,
    )
    return _Guard(_stopped_by_cancelling(app), api_key, metrics)


def _stopped_by_cancelling(app: ASGIApp) -> ASGIApp:
    """`app`, for which being cancelled is the end of its life.

    A second Ctrl-C and a closed terminal cancel it; Starlette would print a traceback of that.
    """

    async def stoppable(scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_or_stop() -> Message:
            try:
                return await receive()
            except asyncio.CancelledError:
                return {"type": "lifespan.shutdown"}

        is_life = scope["type"] == "lifespan"
        await app(scope, receive_or_stop if is_life else receive, send)

    return stoppable


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


class _Guard:
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
