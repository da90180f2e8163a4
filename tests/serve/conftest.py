"""One server for all tests of this folder: two tiny programs, a defect of one, and a slow model."""

import time
from collections.abc import Iterator

import openai
import pytest
import torch
from tests.support.models.tiny_programs import Tiny
from tests.support.pages.servers import client_of, served

from quatrain.serve.models.served_models import ServedModel, load_models
from quatrain.tokenizer import Tokenizer

DEFECT = "dq8ca-zp-binding-float"


class _Slow:
    """A model that takes 20 ms for each token, and writes w7 without end."""

    device = "slow"
    metadata: dict = {}  # noqa: RUF012 (as a runner has it)

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor, /) -> torch.Tensor:
        time.sleep(0.02)
        return torch.eye(96)[[7]]

    def reset(self) -> None: ...


@pytest.fixture(scope="session")
def slow(tiny: Tiny) -> ServedModel:
    words = Tokenizer.load(tiny.checkpoint / "tokenizer.json")
    return ServedModel("slow", 0, _Slow(), words, context=100_000, vocab_size=96)


@pytest.fixture(scope="session")
def models(tiny: Tiny, slow: ServedModel) -> list[ServedModel]:
    words = tiny.checkpoint / "tokenizer.json"
    plain = load_models([tiny.programs["weight-only"]], tokenizer=words, device="reference")
    both = load_models(
        [tiny.programs["8da4w"]], tokenizer=words, device="reference", emulate=[DEFECT]
    )
    return [*both, *plain, slow]


@pytest.fixture(scope="session")
def url(models: list[ServedModel]) -> Iterator[str]:
    with served(models) as address:
        yield address


@pytest.fixture(scope="session")
def client(url: str) -> openai.OpenAI:
    return client_of(url)


@pytest.fixture(scope="session")
def strict(url: str) -> openai.OpenAI:
    """Refuses what is not of its types. Those say that no chunk of a completion's stream has a
    finish_reason of null, as all but one have at OpenAI."""
    return openai.OpenAI(
        base_url=f"{url}/v1", api_key="none", max_retries=0, _strict_response_validation=True
    )
