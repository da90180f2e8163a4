"""Many clients at once, and clients that leave."""

import json
import random
import socket
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import openai
import pytest
import torch
from tests.support.pages.servers import served

from quatrain.serve.limits import Limits
from quatrain.serve.models.served_models import ServedModel

CLIENTS = 16
# Both compute the same bits whatever was asked before: floating point, or no reuse at all.
MODELS = ("weight-only", "8da4w+dq8ca-zp-binding-float")
HEAD = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def prompts() -> list[list[int]]:
    numbers = random.Random(5)
    return [[numbers.randrange(96) for _ in range(3 + index % 5)] for index in range(CLIENTS)]


def asked(client: openai.OpenAI, model: str, prompt: list[int], stream: bool = False) -> str:
    """The greedy answer, of which half are streams."""
    said = {"model": model, "prompt": prompt, "temperature": 0, "max_tokens": 6}
    if not stream:
        return client.completions.create(**said).choices[0].text
    return "".join(part.choices[0].text for part in client.completions.create(stream=True, **said))


def load(client: openai.OpenAI, seconds: float) -> int:
    """How many requests `CLIENTS` clients made, each for its own answers, which are what they are
    alone; each client asks once at least."""
    alone = {(m, i): asked(client, m, prompt) for m in MODELS for i, prompt in enumerate(prompts())}
    assert len(set(alone.values())) > CLIENTS
    end = time.monotonic() + seconds

    def one(index: int) -> int:
        for count in range(1_000_000):
            for model in MODELS:
                found = asked(client, model, prompts()[index], stream=(index + count) % 2 == 0)
                assert found == alone[model, index]
            if time.monotonic() > end:
                return 2 * (count + 1)
        return 0

    with ThreadPoolExecutor(CLIENTS) as pool:
        return sum(pool.map(one, range(CLIENTS)))


def test_sixteen_clients_get_their_own_answers(client: openai.OpenAI) -> None:
    assert load(client, seconds=0) == 2 * CLIENTS


@pytest.mark.thorough
def test_sixteen_clients_for_a_minute(client: openai.OpenAI) -> None:
    assert load(client, seconds=60) > 10 * CLIENTS


def test_a_client_that_leaves_frees_the_model(client: openai.OpenAI) -> None:
    """Its answer would take half an hour."""
    long = {"model": "slow", "prompt": [5], "max_tokens": 90_000, "temperature": 0}
    with client.completions.create(stream=True, **long) as stream:
        assert [next(iter(stream)).choices[0].text for _ in range(2)] == ["w7", " w7"]
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.3).completions.create(**long)
    assert client.completions.create(**long | {"max_tokens": 2}).choices[0].text == "w7 w7"


def test_a_client_that_leaves_while_its_prompt_is_read(slow: ServedModel) -> None:
    """The prompt is read in parts, and its rest is not."""
    runner = _Reader()
    with served([replace(slow, runner=runner)]) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        said = {"model": "slow", "max_tokens": 1, "temperature": 0}
        body = json.dumps({"prompt": [5] * 20_000, **said})
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as other:
            other.sendall(f"{HEAD}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            while runner.read < 128:
                time.sleep(0.01)
        assert client.completions.create(prompt=[6], **said).choices[0].text == "w7"
    assert 128 <= runner.read < 10_000


def test_a_client_that_leaves_before_its_request_is_whole(slow: ServedModel) -> None:
    with served([slow]) as url:
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as other:
            other.sendall(f'{HEAD}Content-Length: 500\r\n\r\n{{"mod'.encode())
        counted = 'quatrain_requests_total{endpoint="/v1/completions",status='
        while counted not in (found := counters(url)):
            time.sleep(0.01)
        assert f'{counted}"499"}} 1.0' in found


def test_too_many_waiting_clients_get_a_time_to_retry(slow: ServedModel) -> None:
    """With one that is answered and one that waits, the third is refused."""
    runner = _Held()
    with served([replace(slow, runner=runner)], Limits(queue=1)) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)

        def ask() -> str:
            said = {"model": "slow", "prompt": [5], "max_tokens": 2, "temperature": 0}
            return client.completions.create(**said).choices[0].text

        with ThreadPoolExecutor(2) as pool:
            answers = [pool.submit(ask)]
            assert runner.reads.wait(timeout=60)  # before, both would wait
            answers.append(pool.submit(ask))
            while 'quatrain_queued{model="slow"} 1.0' not in counters(url):
                time.sleep(0.01)
            with pytest.raises(openai.RateLimitError) as refused:
                ask()
            runner.released.set()
            assert [answer.result() for answer in answers] == ["w7 w7"] * 2
    assert refused.value.code == "queue_full"
    assert int(refused.value.response.headers["retry-after"]) >= 1


def counters(url: str) -> str:
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        return answer.read().decode()


class _Reader:
    """A model that takes a millisecond for each token that it reads, and counts them."""

    device = "reader"
    metadata: dict = {}  # noqa: RUF012 (as a runner has it)
    read = 0

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor, /) -> torch.Tensor:
        time.sleep(0.001 * tokens.shape[1])
        self.read += tokens.shape[1]
        return torch.eye(96)[[7]]

    def reset(self) -> None: ...


class _Held:
    """A model that writes w7 once it is `released`; `reads` tells that it was called."""

    device = "held"
    metadata: dict = {}  # noqa: RUF012 (as a runner has it)

    def __init__(self) -> None:
        self.reads, self.released = threading.Event(), threading.Event()

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor, /) -> torch.Tensor:
        self.reads.set()
        assert self.released.wait(timeout=60)
        return torch.eye(96)[[7]]

    def reset(self) -> None: ...
