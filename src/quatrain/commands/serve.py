"""`quatrain serve`: programs as an OpenAI-compatible server."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quatrain.commands._before_torch import (
    check_program,
    check_tokenizer,
    import_torch,
    leave_cores_to_executorch,
)
from quatrain.commands.options.shared import AsOn, Debug, Device, Json, TokenizerFile, one_of
from quatrain.commands.printing.progress import shown_stages
from quatrain.commands.printing.results import print_json
from quatrain.errors import InputError
from quatrain.runtime.defects import EmulatedDefect, emulated_defect
from quatrain.serve.limits import Limits

if TYPE_CHECKING:
    from quatrain.serve.models.served_models import ServedModel

_KEY = "QUATRAIN_API_KEY"
_LOCAL = ("127.0.0.1", "localhost", "::1")

Models = Annotated[
    list[Path],
    typer.Argument(
        metavar="MODEL.PTE", help="Programs to serve; clients name each by its file name."
    ),
]
Host = Annotated[str, typer.Option(metavar="ADDRESS", help="The address to listen on.")]
Port = Annotated[
    int, typer.Option(metavar="N", min=0, max=65535, help="The port; 0 takes a free one.")
]
MaxBody = Annotated[int, typer.Option(metavar="BYTES", min=1, help="The largest request.")]
MaxPromptTokens = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="The longest prompt. Default: the program's context."),
]
MaxQueue = Annotated[
    int, typer.Option(metavar="N", min=0, help="How many requests of one model may wait.")
]
MaxVariants = Annotated[
    int,
    typer.Option(
        metavar="N", min=0, help="How many programs with emulated defects may be loaded on request."
    ),
]


def _known_defects(emulate: list[str] | None) -> list[str]:
    return [defect for name in emulate or () if (defect := emulated_defect(name))]


Emulated = Annotated[
    list[str] | None,
    typer.Option(
        "--emulate",
        metavar="DEFECT",
        help="Serve each Vulkan program a second time, as NAME+DEFECT, computed as a phone "
        "with that known defect does (docs/devices.md); may be repeated.",
        autocompletion=one_of(*EmulatedDefect),
        callback=_known_defects,
    ),
]


def serve(
    models: Models,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    tokenizer: TokenizerFile = None,
    device: Device = "auto",
    emulate: Emulated = None,
    as_on: AsOn = None,
    max_body: MaxBody = Limits.body_bytes,
    max_prompt_tokens: MaxPromptTokens = Limits.prompt_tokens,
    max_queue: MaxQueue = Limits.queue,
    max_variants: MaxVariants = Limits.variants,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Serve programs through OpenAI's API over HTTP, and a chat page that compares two of them.

    If QUATRAIN_API_KEY is set, clients must send it.

    Example: `quatrain serve smollm2-8da4w.pte smollm2-weight-only.pte --port 8000`
    """
    for model in models:
        check_program(model)
    check_tokenizer(tokenizer)
    key = _api_key()
    _require_extra()
    leave_cores_to_executorch(models)
    import_torch()
    from quatrain.serve.models.served_models import load_models
    from quatrain.serve.server import serve_models

    if key is None and host not in _LOCAL:
        print(
            f"warning: whoever reaches {host} can use this server; set {_KEY} to ask for a key",
            file=sys.stderr,
        )

    def ready(url: str, served: "list[ServedModel]") -> None:
        if json:
            print_json({"url": url, "models": [_as_dict(model) for model in served]})
        else:
            _print_ready(url, served)
        sys.stdout.flush()

    def load() -> "list[ServedModel]":
        return load_models(
            models, tokenizer=tokenizer, device=device, emulate=emulate or (), as_on=as_on,
            stages=shown_stages(),
        )  # fmt: skip

    limits = Limits(max_body, max_prompt_tokens, max_queue, max_variants)
    serve_models(load, host=host, port=port, api_key=key, limits=limits, on_ready=ready)


def _api_key() -> str | None:
    key = os.environ.get(_KEY) or None
    if key and (key != key.strip() or not (key.isascii() and key.isprintable())):
        raise InputError(
            f"{_KEY}: begins or ends with white space, or has characters other than printable "
            "ASCII, so no client can send it; set another key"
        )
    return key


def _require_extra() -> None:
    for package in ("starlette", "uvicorn", "prometheus_client", "pydantic"):
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"serve needs {package}, which is not installed; run `pip install "
                "'quatrain[serve]'`"
            )


def _as_dict(model: "ServedModel") -> dict[str, object]:
    return {
        "id": model.name,
        "device": model.runner.device,
        "emulates": model.emulates,
        "as_on": model.as_on,
    }


def _print_ready(url: str, served: "list[ServedModel]") -> None:
    print(f"{url} (chat page), {url}/v1 (OpenAI's API); Ctrl-C ends it")
    for model in served:
        print(f"  {model.name:<40} {model.runner.device}")
