"""Sends an answer, complete or as a stream of events, and cancels it if its client disconnects."""

import asyncio
import json
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from quatrain.serve.errors import LEFT, error_body
from quatrain.serve.models.answer import Answer, Asked, ClientLeft, End, Piece
from quatrain.serve.models.worker import Worker
from quatrain.serve.openai_api.responses import Shape


async def send_whole(request: Request, worker: Worker, asked: Asked, shape: Shape) -> Response:
    """The answer in one object, once it is written."""
    answer = Answer(asked)
    worker.submit(answer)
    pieces: list[Piece] = []
    try:
        async for event in _events(request, worker, answer):
            if isinstance(event, End):
                return JSONResponse(shape.whole(pieces, event))
            pieces.append(event)
    except ClientLeft:
        pass
    return Response(status_code=LEFT)


def send_stream(
    request: Request, worker: Worker, asked: Asked, shape: Shape, with_usage: bool
) -> Response:
    """The answer as server-sent events, each piece as it is written.

    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
    """
    answer = Answer(asked)
    worker.submit(answer)  # what refuses it has a status of its own
    stream = _stream(request, worker, answer, shape, with_usage)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


async def _stream(
    request: Request, worker: Worker, answer: Answer, shape: Shape, with_usage: bool
) -> AsyncIterator[str]:
    if first := shape.first():
        yield _event(first)
    try:
        async for event in _events(request, worker, answer):
            if isinstance(event, Piece):
                if (chunk := shape.chunk(event)) is not None:
                    yield _event(chunk)
                continue
            for chunk in shape.last(event):
                yield _event(chunk)
            if with_usage:
                yield _event(shape.counted(event))
            yield "data: [DONE]\n\n"
    except ClientLeft:
        return
    except Exception as error:
        yield _event(error_body(500, f"{type(error).__name__}: {error}"))
        raise


def _event(data: dict) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


async def _events(request: Request, worker: Worker, answer: Answer) -> AsyncIterator[Piece | End]:
    """The events of `answer`; `ClientLeft` where its client does."""
    leaving = asyncio.create_task(_cancel_when_left(request, worker, answer))
    try:
        async for event in answer.events():
            yield event
    finally:
        leaving.cancel()
        worker.cancel(answer)


async def _cancel_when_left(request: Request, worker: Worker, answer: Answer) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    worker.cancel(answer)
