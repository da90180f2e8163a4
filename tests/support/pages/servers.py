"""A server over real HTTP, in a thread of the test."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import openai

from quatrain.serve.app import build_app
from quatrain.serve.limits import Limits
from quatrain.serve.models.served_models import ServedModel
from quatrain.serve.server import listening, server, url_of


@contextmanager
def served(
    models: Sequence[ServedModel], limits: Limits | None = None, api_key: str | None = None
) -> Iterator[str]:
    """The URL of a server of `models`, until the block is left."""
    with listening("127.0.0.1", 0) as sock:
        running = server(build_app(models, limits or Limits(), api_key))
        thread = threading.Thread(target=running.run, args=([sock],))
        thread.start()
        try:
            yield url_of(sock)
        finally:
            running.should_exit = True
            thread.join()


def client_of(url: str) -> openai.OpenAI:
    """OpenAI's client of that server."""
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
