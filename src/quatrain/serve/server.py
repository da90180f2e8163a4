"""Listens on an address and answers requests until it is stopped."""

import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp

from quatrain.errors import InputError
from quatrain.serve.app import build_app
from quatrain.serve.limits import Limits
from quatrain.serve.models.served_models import ServedModel

_LAST_SECONDS = 3  # seconds for running answers to finish when the server is stopped


def serve_models(
    load: Callable[[], list[ServedModel]],
    *,
    host: str,
    port: int,
    api_key: str | None,
    limits: Limits,
    on_ready: Callable[[str, list[ServedModel]], None],
) -> None:
    """Serve what `load` loads over HTTP until the process is interrupted.

    Args:
        load: Gives the models; called once the address is held, where clients wait meanwhile.
        host: The address to listen on, a name or number.
        port: The port; 0 takes a free one.
        api_key: What clients have to send, or None for no key.
        limits: What is taken at most.
        on_ready: Called once connections are taken, with the server's URL and its models.

    Raises:
        InputError: If the address cannot be listened on; and as `load`.
    """
    with listening(host, port) as sock:
        models = load()
        on_ready(url_of(sock), models)
        with suppress(KeyboardInterrupt):  # how a server is ended
            server(build_app(models, limits, api_key)).run([sock])


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens on that address. Raises `InputError` if it is taken or is not one here.

    It listens at once: one that is only bound does not keep another server from binding it too.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen()
    except (OSError, UnicodeError) as error:  # the latter of a name with an empty part
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"--host {host} --port {port}: the server cannot listen there: {reason}; give another "
            "--port, such as 0 for a free one, or an address of this machine"
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
