"""What is refused, in OpenAI's shape, as `curl` sees it; keys and limits."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.support.pages.servers import served

from quatrain.serve.limits import Limits
from quatrain.serve.models.served_models import ServedModel

CHAT = {"model": "weight-only", "messages": [{"role": "user", "content": "w5"}], "max_tokens": 2}
TEXT = {"model": "weight-only", "prompt": "w5 w6", "max_tokens": 2}
pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@dataclass
class Answer:
    status: int
    headers: str
    text: str

    @property
    def error(self) -> dict[str, Any]:
        body = json.loads(self.text)
        assert list(body) == ["error"]
        assert set(body["error"]) == {"message", "type", "param", "code"}
        return body["error"]


def curl(address: str, body: Any = None, *options: str) -> Answer:
    """`body`: an object becomes JSON, and a text is sent as it is."""
    command = ["curl", "-sS", "-i", *options, address]
    if body is not None:
        command += ["--data-binary", "@-", "-H", "Content-Type: application/json", "-H", "Expect:"]
    data = body if isinstance(body, str) else json.dumps(body)
    done = subprocess.run(command, input=data, capture_output=True, text=True, check=True)
    headers, _, text = done.stdout.replace("\r\n", "\n").partition("\n\n")
    return Answer(int(headers.split()[1]), headers, text)


def test_what_curl_gets(url: str) -> None:
    answer = curl(f"{url}/v1/chat/completions", CHAT)
    assert answer.status == 200 and json.loads(answer.text)["object"] == "chat.completion"
    stream = curl(f"{url}/v1/completions", TEXT | {"stream": True}, "-N")
    events = stream.text.strip().split("\n\n")
    assert "content-type: text/event-stream" in stream.headers and events[-1] == "data: [DONE]"
    assert all(json.loads(event.removeprefix("data: ")) for event in events[:-1])


# The path, what replaces fields (None as a body: no JSON), and the field and words of the message.
REFUSED = {
    "no JSON": ("chat/completions", "{", None, "the body is not a valid request"),
    "no object": ("chat/completions", "[]", None, "the body is not a valid request"),
    "deep": ("completions", "[" * 100_000, None, "the body is not a valid request"),
    "no messages": ("chat/completions", {"messages": []}, "messages", "at least 1"),
    "n": ("chat/completions", {"n": 2}, "n", "n: .* found 2; only one answer per request"),
    "no tool": ("chat/completions", {"tools": [{}]}, "tools[0].type", "tools.* is missing"),
    "tools that nobody is told of": (
        "chat/completions", {"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools",
        "the chat template of weight-only does not support tools",
    ),
    "a tool that must be called": (
        "chat/completions", {"tool_choice": "required"}, "tool_choice", "the model decides",
    ),
    "an older name": (
        "chat/completions", {"functions": [{}]}, "functions", "newer fields are tools",
    ),
    "an unknown field": ("chat/completions", {"top_a": 1}, "top_a", "top_a: is not supported here"),
    "one that is no word": ("chat/completions", {"": 1}, "''", "'': is not supported here"),
    "one with a hyphen": ("completions", {"max-tokens": 1}, "max-tokens", "max-tokens: is not sup"),
    "one called as a type": ("completions", {"str": 1}, "str", "str: is not supported here"),
    "one of a message": (
        "chat/completions", {"messages": [{"role": "user", "content": "w5", "a b": 1}]},
        "messages[0].'a b'", "is not supported here",
    ),
    "penalty": (
        "completions", {"presence_penalty": 0.5}, "presence_penalty",
        "found 0.5; the logits of the model are not changed",
    ),
    "a role": (
        "chat/completions", {"messages": [{"role": "function", "content": "w"}]},
        "messages[0].role", "'system', 'developer', 'user', 'assistant' or 'tool'",
    ),
    "a picture": (
        "chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages[0].content[0].type", "found 'image_url'",
    ),
    "a text for a number": ("completions", {"max_tokens": "7"}, "max_tokens", "found '7'"),
    "no tokens": ("completions", {"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
    "too hot": ("completions", {"temperature": 3}, "temperature", "found 3"),
    "a stop that every text has": ("completions", {"stop": ""}, "stop", "at least 1 character"),
    "one among others": ("completions", {"stop": ["w", ""]}, "stop[1]", "at least 1 character"),
    "two names of a limit": (
        "chat/completions", {"max_completion_tokens": 3}, "max_completion_tokens", "give one",
    ),
    "top_logprobs alone": (
        "chat/completions", {"top_logprobs": 3}, "top_logprobs", "needs logprobs: true",
    ),
    "options of a stream": (
        "completions", {"stream_options": {}}, "stream_options", "set stream: true",
    ),
    "an empty prompt": ("completions", {"prompt": ""}, "prompt", "the prompt has no tokens"),
    "two prompts": ("completions", {"prompt": ["a", "b"]}, "prompt", "one prompt per request"),
    "an unknown token": ("completions", {"prompt": [5, 96]}, "prompt", "0 to 95"),
    "a token beyond any": ("completions", {"prompt": [2**31 - 1]}, "prompt", "token id 2147483647"),
    "a long prompt": ("completions", {"prompt": [5] * 65}, "prompt", "65 tokens, .* holds 64"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_mistake_names_its_field(url: str, name: str) -> None:
    path, changed, field, message = REFUSED[name]
    body = changed if isinstance(changed, str) else (CHAT if "chat" in path else TEXT) | changed
    answer = curl(f"{url}/v1/{path}", body)
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error" and answer.error["param"] == field
    assert re.search(message, answer.error["message"]), answer.error["message"]


def test_what_is_not_there(url: str) -> None:
    unknown = curl(f"{url}/v1/completions", TEXT | {"model": "gpt"})
    assert unknown.status == 404 and unknown.error["code"] == "model_not_found"
    assert "expected one of 8da4w, " in unknown.error["message"]
    assert curl(f"{url}/v1/models/gpt").error["param"] == "model"
    assert curl(f"{url}/v1/embeddings", {}).status == 404
    method = curl(f"{url}/v1/completions")
    assert method.status == 405 and "allow: POST" in method.headers and method.error
    media = curl(f"{url}/v1/completions", None, "-d", "prompt=x")
    assert media.status == 415 and "expected application/json" in media.error["message"]


def test_fields_that_change_nothing_are_taken(url: str) -> None:
    body = CHAT | {
        "n": 1, "user": "u", "store": False, "metadata": {"a": "b"}, "tools": [], "logit_bias": {},
        "tool_choice": "none", "parallel_tool_calls": True, "response_format": {"type": "text"},
        "frequency_penalty": 0, "presence_penalty": 0.0, "service_tier": "auto", "stop": None,
        "modalities": ["text"], "safety_identifier": "s", "prompt_cache_key": "k",
    }  # fmt: skip
    answer = curl(f"{url}/v1/chat/completions", body)
    assert answer.status == 200, answer.text


def test_keys_and_limits(models: list[ServedModel]) -> None:
    limits = Limits(body_bytes=1000, prompt_tokens=4)
    with served(models, limits, api_key="secret") as url:
        key = ("-H", "Authorization: Bearer secret")
        for wrong in ((), ("-H", "Authorization: Bearer secre"), ("-H", "Authorization: secret")):
            answer = curl(f"{url}/v1/completions", TEXT, *wrong)
            assert answer.status == 401 and answer.error["code"] == "invalid_api_key"
            assert curl(f"{url}/metrics", None, *wrong).status == 401
        for right in (key, ("-H", "Authorization: bearer  secret")):
            assert curl(f"{url}/v1/completions", TEXT, *right).status == 200
        assert curl(f"{url}/").status == curl(f"{url}/openapi.json").status == 200

        large = curl(f"{url}/v1/completions", TEXT | {"user": "x" * 1000}, *key)
        assert large.status == 413 and "more than 1000 bytes" in large.error["message"]
        long = curl(f"{url}/v1/completions", TEXT | {"prompt": [5] * 5}, *key)
        assert long.status == 400 and long.error["code"] == "context_length_exceeded"
        counted = counters(curl(f"{url}/metrics", None, *key).text)
        assert counted["quatrain_requests_total", "/v1/completions", "401"] == 3
        assert counted["quatrain_generated_tokens_total", "weight-only"] == 4


def counters(text: str) -> dict[tuple[str, ...], float]:
    """Each sample by its name and labels, as Prometheus' own parser reads them."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
