"""The server as an ASGI application."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quatrain.errors import InputError
from quatrain.serve.errors import ApiError, failed, left, no_such_page, not_computable, refused
from quatrain.serve.guard import Guard
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
    return Guard(_stopped_by_cancelling(app), api_key, metrics)


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
