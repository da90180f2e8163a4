"""The endpoints of the API."""

import asyncio
import secrets
from importlib import resources
from typing import Any, TypeVar

from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from quatrain.runtime.generation.sampling import Sampling
from quatrain.serve.errors import ApiError, of_validation
from quatrain.serve.limits import Limits
from quatrain.serve.metrics import Metrics
from quatrain.serve.models.answer import Asked
from quatrain.serve.models.served_models import ServedModel
from quatrain.serve.models.workers import Workers
from quatrain.serve.openai_api.openapi import openapi
from quatrain.serve.openai_api.prompts import prompt_tokens
from quatrain.serve.openai_api.requests import ChatRequest, CompletionRequest, GenerationRequest
from quatrain.serve.openai_api.responses import ChatShape, CompletionShape, Shape
from quatrain.serve.openai_api.sending import send_stream, send_whole
from quatrain.serve.openai_api.tool_calls import BEGIN

_COMPLETION_TOKENS = 16  # where a completion's request says nothing, as OpenAI's API has it
# The page loads nothing from elsewhere: script and style are in it.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline';"
    " style-src 'unsafe-inline'; frame-ancestors 'none'"
}


_Wanted = TypeVar("_Wanted", bound=GenerationRequest)


async def read_request(request: Request, kind: type[_Wanted], max_bytes: int) -> _Wanted:
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


class Endpoints:
    """The addresses of one server, over its `workers`."""

    def __init__(self, workers: Workers, limits: Limits, metrics: Metrics, with_key: bool) -> None:
        self._workers, self._limits, self._metrics = workers, limits, metrics
        names = [[one, *workers.variants(model)] for one, model in workers.models.items()]
        self._schema = openapi([name for several in names for name in several], with_key)

    def routes(self) -> list[Route]:
        """Each address, and what answers there."""
        return [
            Route("/", self._page),
            Route("/openapi.json", self._openapi),
            Route("/metrics", self._counters),
            Route("/v1/models", self._models),
            Route("/v1/models/{model}", self._model),
            Route("/v1/completions", self._complete, methods=["POST"]),
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
        ]

    async def _page(self, request: Request) -> Response:
        page = resources.files("quatrain.serve").joinpath("page.html").read_text("utf-8")
        return HTMLResponse(page, headers=_PAGE_HEADERS)

    async def _openapi(self, request: Request) -> Response:
        return JSONResponse(self._schema)

    async def _counters(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def _models(self, request: Request) -> Response:
        described = [self._described(model) for model in self._workers.models.values()]
        return JSONResponse({"object": "list", "data": described})

    async def _model(self, request: Request) -> Response:
        name = request.path_params["model"]
        model, defect = self._workers.find(name)
        said = self._described(model)
        if defect is not None:
            said |= {"id": name, "emulates": defect, "can_emulate": []}
        return JSONResponse(said)

    async def _complete(self, request: Request) -> Response:
        wanted = await read_request(request, CompletionRequest, self._limits.body_bytes)
        model, _ = self._workers.find(wanted.model)
        most = wanted.max_tokens or _COMPLETION_TOKENS
        asked = await self._asked(model, wanted, most, wanted.logprobs)
        shape = CompletionShape(wanted.model, wanted.logprobs is not None)
        return await self._answered(request, wanted, asked, shape)

    async def _chat(self, request: Request) -> Response:
        wanted = await read_request(request, ChatRequest, self._limits.body_bytes)
        model, _ = self._workers.find(wanted.model)
        most = _most_tokens(wanted, model.context)
        top = (wanted.top_logprobs or 0) if _wants_logprobs(wanted) else None
        asked = await self._asked(model, wanted, most, top)
        shape = ChatShape(wanted.model, top is not None, _reads_calls(wanted, model))
        return await self._answered(request, wanted, asked, shape)

    def _described(self, model: ServedModel) -> dict[str, Any]:
        return {
            "id": model.name,
            "object": "model",
            "created": model.created,
            "owned_by": "quatrain",
            "context": model.context,
            "device": model.runner.device,
            "emulates": model.emulates,
            "can_emulate": list(self._workers.variants(model).values()),
            "as_on": model.as_on,
            "chat": model.tokenizer.chat_template is not None,
        }

    async def _asked(
        self,
        model: ServedModel,
        wanted: ChatRequest | CompletionRequest,
        most: int,
        top: int | None,
    ) -> Asked:
        """`wanted` as its model takes it; long prompts are encoded beside the event loop."""
        limit = self._limits.prompt_tokens
        tokens = await asyncio.to_thread(prompt_tokens, model, wanted, limit)
        return Asked(tokens, most, _sampling(wanted), wanted.stop_strings(), top)

    async def _answered(
        self, request: Request, wanted: GenerationRequest, asked: Asked, shape: Shape
    ) -> Response:
        options = wanted.stream_options
        if options is not None and not wanted.stream:
            raise ApiError(
                400, "stream_options: is only for streams; set stream: true", "stream_options"
            )
        # At last, and submitted at once: meanwhile it could be unloaded for another request.
        worker = await self._workers.worker(wanted.model)
        if not wanted.stream:
            return await send_whole(request, worker, asked, shape)
        with_usage = options is not None and options.include_usage is True
        return send_stream(request, worker, asked, shape, with_usage)


def _sampling(wanted: GenerationRequest) -> Sampling:
    """OpenAI's defaults. A seed that is not given is another one each time; where the most likely
    token is taken, nothing narrows the choice."""
    drawn = wanted.temperature != 0
    return Sampling(
        temperature=1.0 if wanted.temperature is None else wanted.temperature,
        top_k=wanted.top_k or 0 if drawn else 0,
        top_p=wanted.top_p or 1.0 if drawn else 1.0,
        min_p=wanted.min_p or 0.0 if drawn else 0.0,
        repetition_penalty=wanted.repetition_penalty or 1.0,
        seed=secrets.randbits(64) if wanted.seed is None else wanted.seed % 2**64,
    )


def _most_tokens(wanted: ChatRequest, context: int) -> int:
    older, newer = wanted.max_tokens, wanted.max_completion_tokens
    if older and newer and older != newer:
        raise ApiError(
            400,
            f"max_completion_tokens is {newer}, but max_tokens, its older name, is {older}; give "
            "one",
            "max_completion_tokens",
        )
    return newer or older or context


def _wants_logprobs(wanted: ChatRequest) -> bool:
    if wanted.top_logprobs is not None and not wanted.logprobs:
        raise ApiError(400, "top_logprobs: needs logprobs: true", "top_logprobs")
    return wanted.logprobs is True


def _reads_calls(wanted: ChatRequest, model: ServedModel) -> bool:
    """Whether the request offers tools, and the model calls them in the supported form."""
    if not wanted.offered_tools():
        return False
    if wanted.parallel_tool_calls is False:
        raise ApiError(
            400,
            "parallel_tool_calls: false is not supported, the model may call several tools at "
            "once; leave it out",
            "parallel_tool_calls",
        )
    templates = model.tokenizer.chat_templates
    return BEGIN in templates.get("tool_use", templates.get("default", ""))
