"""`quatrain serve`, from its start to Ctrl-C, and what it refuses before."""

import asyncio
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.models.tiny_programs import Tiny
from tests.support.programs import artifact

from quatrain.commands.serve import serve
from quatrain.errors import InputError
from quatrain.serve.app import build_app
from quatrain.serve.limits import Limits
from quatrain.serve.models.served_models import load_models
from quatrain.serve.server import listening


def test_it_serves_until_it_is_interrupted(tiny: Tiny) -> None:
    words = tiny.checkpoint / "tokenizer.json"
    command = [
        sys.executable, "-m", "quatrain", "serve", tiny.programs["8da4w"], "--tokenizer", words,
        "--device", "reference", "--as-on", "mali-g76", "--port", "0", "--json",
    ]  # fmt: skip
    environment = os.environ | {"QUATRAIN_API_KEY": "secret", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout and process.stderr
        said = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
        request = urllib.request.Request(
            f"{said['url']}/v1/models", headers={"Authorization": "Bearer secret"}
        )
        with urllib.request.urlopen(request) as answer:
            assert [model["id"] for model in json.load(answer)["data"]] == ["8da4w"]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        assert "Traceback" not in process.stderr.read()
    assert said["models"] == [
        {"id": "8da4w", "device": "reference", "emulates": None, "as_on": "mali-g76"}
    ]


def test_being_cancelled_is_no_failure() -> None:
    """As by a second Ctrl-C, and by a closed terminal."""
    sent = []

    async def life() -> None:
        events = asyncio.Queue()
        events.put_nowait({"type": "lifespan.startup"})

        async def send(event: Any) -> None:
            sent.append(event["type"])

        app = build_app([], Limits())
        task = asyncio.ensure_future(app({"type": "lifespan"}, events.get, send))
        while not sent:
            await asyncio.sleep(0)
        task.cancel()
        await task

    asyncio.run(life())
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_two_programs_of_one_name_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    copy = shutil.copy(tiny.programs["8da4w"], tmp_path)
    with pytest.raises(
        InputError, match=r"its name for clients would be '8da4w', as for .* rename"
    ):
        load_models([tiny.programs["8da4w"], Path(copy)])
    with pytest.raises(InputError, match="is named twice; name it once"):
        load_models([Path(copy), Path(copy)])


def test_a_program_whose_name_no_client_could_send_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    copy = shutil.copy(tiny.programs["8da4w"], tmp_path / os.fsdecode(b"\xff.pte"))
    with pytest.raises(InputError, match="its name is not UTF-8, which a server needs; rename it"):
        load_models([Path(copy)])


@pytest.mark.parametrize("key", [" secret", "secret\r", "s\u00e9cret", os.fsdecode(b"\xff")])
def test_a_key_that_no_client_could_send_is_refused(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("QUATRAIN_API_KEY", key)
    with pytest.raises(InputError, match=r"QUATRAIN_API_KEY: .* set another key"):
        serve([tiny.programs["8da4w"]])


def test_a_program_computes_as_on_a_phone(tiny: Tiny) -> None:
    """Without integer dot products 8da4w computes as weight-only does."""
    words, tokens = tiny.checkpoint / "tokenizer.json", torch.tensor([[5, 17, 40, 9]])

    def logits(scheme: str, as_on: str | None) -> torch.Tensor:
        (model,) = load_models(
            [tiny.programs[scheme]], tokenizer=words, device="reference", as_on=as_on
        )
        assert model.as_on == as_on
        return model.runner.forward(tokens, torch.tensor([0]))

    there = logits("8da4w", "mali-g76")
    assert torch.equal(there, logits("weight-only", None))
    assert not torch.equal(there, logits("8da4w", None))


def test_a_defect_needs_a_program_for_vulkan() -> None:
    with pytest.raises(InputError, match="--emulate dq8ca-group-sums: applies only to Vulkan pro"):
        load_models([artifact("peer-xnnpack-8da4w")], emulate=["dq8ca-group-sums"])
    with pytest.raises(InputError, match="--as-on pixel-8: applies only to Vulkan programs"):
        load_models([artifact("peer-xnnpack-8da4w")], as_on="pixel-8")


def test_an_address_that_is_taken_is_refused() -> None:
    with listening("127.0.0.1", 0) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            InputError, match=f"--port {port}: the server cannot listen there: .* in use"
        ):
            listening("127.0.0.1", port)
    for host in ("nowhere", "no..where"):
        with pytest.raises(
            InputError, match=f"--host {host} --port 1: the server cannot listen there"
        ):
            listening(host, 1)


def test_without_its_extra_it_says_what_to_install(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name)
    )
    with pytest.raises(InputError, match=r"needs uvicorn, .*pip install 'quatrain\[serve\]'"):
        serve([tiny.programs["8da4w"]])
