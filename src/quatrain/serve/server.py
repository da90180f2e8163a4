"""Listens on an address and answers there until it is told to end."""

import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from quatrain.errors import InputError
from quatrain.serve.app import build_app
from quatrain.serve.limits import Limits
from quatrain.serve.models.served_models import ServedModel, load_models
from quatrain.stages import Stages

_LAST_SECONDS = 3  # that answers have to come to their end once the server is told to


def serve_programs(
    programs: Sequence[Path],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: str | None = None,
    limits: Limits | None = None,
    tokenizer: Path | None = None,
    device: str = "auto",
    emulate: Sequence[str] = (),
    as_on: str | None = None,
    stages: Stages | None = None,
    on_ready: Callable[[str, list[ServedModel]], None] | None = None,
) -> None:
    """Serve `programs` over HTTP until the process is interrupted.

    Args:
        programs: Paths of .pte files from tokens to logits.
        host: The address to listen on, a name or number.
        port: The port; 0 takes a free one.
        api_key: What clients have to send, or None for no key.
        limits: What is taken at most.
        tokenizer: As in `load_models`.
        device: As in `load_runner`.
        emulate: As in `load_models`.
        as_on: As in `load_models`.
        stages: As in `load_models`.
        on_ready: Called once connections are taken, with the server's URL and its models.

    Raises:
        InputError: Where the address cannot be listened on, before anything is loaded; and as
            `load_models`.
    """
    with listening(host, port) as sock:
        models = load_models(
            programs,
            tokenizer=tokenizer,
            device=device,
            emulate=emulate,
            as_on=as_on,
            stages=stages,
        )
        sock.listen()
        if on_ready:
            on_ready(url_of(sock), models)
        with suppress(KeyboardInterrupt):  # how a server is ended
            server(build_app(models, limits or Limits(), api_key)).run([sock])


def listening(host: str, port: int) -> socket.socket:
    """A socket bound to that address. Raises `InputError` where it is taken or is not one here."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        raise InputError(
            f"--host {host} --port {port}: cannot be listened on: {error.strerror}; "
            "give another --port, such as 0 for a free one, or an address of this machine"
        ) from error
    return sock


def url_of(sock: socket.socket) -> str:
    """Where clients reach it, without a slash at the end."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def server(app: ASGIApp) -> uvicorn.Server:
    """uvicorn, which says only what goes wrong."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_LAST_SECONDS,
    )
    return uvicorn.Server(config)
