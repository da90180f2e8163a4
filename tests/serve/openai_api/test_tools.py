"""Tools: told to the model as transformers tells it, and its calls read out of what it writes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import tokenizers
import torch
from tests.support.pages.servers import served
from transformers import PreTrainedTokenizerFast

from quatrain.serve.errors import ApiError
from quatrain.serve.models.served_models import ServedModel
from quatrain.serve.openai_api.prompts import prompt_tokens
from quatrain.serve.openai_api.requests import ChatRequest
from quatrain.serve.openai_api.tool_calls import ToolCallReader
from quatrain.tokenizer import Tokenizer

TEMPLATE = """{%- if tools %}
{{- "tools " }}{% for tool in tools %}{{ tool | tojson }} {% endfor %}
{{- "call them as <tool_call> JSON </tool_call> " }}
{%- endif %}
{%- for message in messages %}
{{- message.role + " " + message.content + " " }}
{%- for call in message.tool_calls or [] %}
{{- "<tool_call> " + call.function.name + " " }}{{ call.function.arguments | tojson }}
{{- " </tool_call> " }}
{%- endfor %}
{%- endfor %}
{{- "go" }}"""
# What the model writes, each word after the one before it.
CALLS = [
    "go", "adding", "<tool_call>", '{"name":', '"add",', '"arguments":', '{"numbers":', "[1,",
    "2]}}", "</tool_call>", "end",
]  # fmt: skip
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds",
        "parameters": {"type": "object", "properties": {"numbers": {"type": "array"}}},
    },
}
ASKED: list[Any] = [{"role": "user", "content": "what is 1 and 2"}]
KNOWN = ["?", *CALLS, "user", "assistant", "tool", "tools", "what", "3", "JSON", "add"]


class _Parrot:
    """A model that writes `CALLS`."""

    device = "parrot"
    metadata: dict = {}  # noqa: RUF012 (as a runner has it)

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor, /) -> torch.Tensor:
        word = KNOWN[int(tokens[0, -1])]
        following = CALLS.index(word) + 1 if word in CALLS[:-1] else 0
        return torch.eye(len(KNOWN))[[KNOWN.index(CALLS[following])]]

    def reset(self) -> None: ...


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tools")
    words = {word: index for index, word in enumerate(KNOWN)}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="?"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    model.add_special_tokens(["end"])
    model.save(str(folder / "tokenizer.json"))
    said = {"chat_template": TEMPLATE, "eos_token": "end"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return folder


@pytest.fixture(scope="module")
def parrot(folder: Path) -> ServedModel:
    words = Tokenizer.load(folder / "tokenizer.json")
    return ServedModel("parrot", 0, _Parrot(), words, context=1000, vocab_size=len(KNOWN))


@pytest.fixture(scope="module")
def client(parrot: ServedModel) -> Iterator[openai.OpenAI]:
    with served([parrot]) as url:
        yield openai.OpenAI(
            base_url=f"{url}/v1", api_key="none", max_retries=0, _strict_response_validation=True
        )


def test_a_call_comes_as_one(client: openai.OpenAI) -> None:
    (choice,) = client.chat.completions.create(
        model="parrot", messages=ASKED, tools=[TOOL], temperature=0
    ).choices
    assert choice.finish_reason == "tool_calls" and choice.message.content == "adding "
    (call,) = choice.message.tool_calls or []
    assert call.type == "function" and call.function.name == "add"
    assert json.loads(call.function.arguments) == {"numbers": [1, 2]}


def test_and_so_it_does_in_a_stream(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="parrot", messages=ASKED, tools=[TOOL], temperature=0
    ) as stream:
        texts = [event.delta for event in stream if event.type == "content.delta"]
        (choice,) = stream.get_final_completion().choices
    assert texts == ["", "adding", " "] and choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls or []
    assert json.loads(call.function.arguments) == {"numbers": [1, 2]} and call.id


def test_what_a_tool_answered_goes_back(client: openai.OpenAI) -> None:
    asked = {"model": "parrot", "tools": [TOOL], "temperature": 0}
    said = client.chat.completions.create(messages=ASKED, **asked).choices[0].message
    (call,) = said.tool_calls or []
    answer: Any = {"role": "tool", "tool_call_id": call.id, "content": "3"}
    again = [*ASKED, said.model_dump(), answer]
    assert client.chat.completions.create(messages=again, **asked).choices[0].finish_reason


def test_without_tools_or_with_none_to_choose_it_is_text(client: openai.OpenAI) -> None:
    asked = {"model": "parrot", "messages": ASKED, "temperature": 0}
    for more in ({}, {"tools": [TOOL], "tool_choice": "none"}):
        (choice,) = client.chat.completions.create(**asked, **more).choices
        assert choice.message.content == " ".join(CALLS[1:-1])
        assert choice.finish_reason == "stop" and choice.message.tool_calls is None


def test_the_prompt_is_that_of_transformers(parrot: ServedModel, folder: Path) -> None:
    peer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    peer.chat_template = TEMPLATE
    arguments = {"numbers": [1, 2]}
    call = {"id": "c1", "type": "function", "function": {"name": "add"}}
    of_api = call | {"function": {"name": "add", "arguments": json.dumps(arguments)}}
    of_peer = call | {"function": {"name": "add", "arguments": arguments}}
    answer = {"role": "tool", "tool_call_id": "c1", "content": "3"}

    def said(call: dict, content: str | None) -> list[dict]:
        return [*ASKED, {"role": "assistant", "content": content, "tool_calls": [call]}, answer]

    request = ChatRequest(model="parrot", messages=said(of_api, None), tools=[TOOL])
    wanted = peer.apply_chat_template(
        said(of_peer, ""), tools=[TOOL], add_generation_prompt=True, tokenize=False
    )
    assert prompt_tokens(parrot, request, None) == peer.encode(wanted, add_special_tokens=False)


REFUSED = {
    "a call that is no JSON": (
        [{"role": "assistant", "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "add", "arguments": "1, 2"}}]}],
        r"messages\[0\].tool_calls: the arguments of add are '1, 2'",
    ),
    "a call of the user": (
        [ASKED[0] | {"tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "add", "arguments": "{}"}}]}],
        r"messages\[0\].tool_calls: belong to messages of the assistant",
    ),
    "no content": ([*ASKED, {"role": "user"}], r"messages\[1\].content: is missing"),
    "an answer to nothing": ([{"role": "tool", "content": "3"}], "tool_call_id: belongs to"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_messages_that_fit_nothing_are_refused(parrot: ServedModel, name: str) -> None:
    messages, message = REFUSED[name]
    with pytest.raises(ApiError, match=message):
        prompt_tokens(parrot, ChatRequest(model="parrot", messages=messages), None)


def test_a_template_that_leaves_out_an_answer_is_reported(folder: Path) -> None:
    words = Tokenizer.load(folder / "tokenizer.json")
    words.chat_templates["default"] = (
        "{{ tools }}{% for m in messages if m.role == 'user' %}user {{ m.content }} {% endfor %}go"
    )
    model = ServedModel("deaf", 0, _Parrot(), words, context=1000, vocab_size=len(KNOWN))
    answer = {"role": "tool", "tool_call_id": "c", "content": "3"}
    request = ChatRequest(model="deaf", messages=[*ASKED, answer], tools=[TOOL])
    with pytest.raises(ApiError, match="leaves out the result of a tool"):
        prompt_tokens(model, request, None)


def test_a_model_without_a_template_is_not_a_chat_model(folder: Path) -> None:
    words = Tokenizer.load(folder / "tokenizer.json")
    words.chat_templates.clear()
    model = ServedModel("bare", 0, _Parrot(), words, context=1000, vocab_size=len(KNOWN))
    with pytest.raises(ApiError, match=r"model: bare has no chat template, .* /v1/completions"):
        prompt_tokens(model, ChatRequest(model="bare", messages=ASKED), None)
    words.chat_templates["default"] = "{{ raise_exception('no') }}"
    with pytest.raises(ApiError, match=r"^bare: its chat template failed: no$"):
        prompt_tokens(model, ChatRequest(model="bare", messages=ASKED), None)


ONE = '<tool_call>\n{"name": "f", "arguments": {"a": "<tool_call>"}}\n</tool_call>'
TWO = f'{ONE}\n<tool_call>{{"name": "g"}}</tool_call>'


@pytest.mark.parametrize(
    ("text", "shown", "names"),
    [
        (f"so: {ONE}", "so: ", ["f"]),
        (TWO, "", ["f", "g"]),
        ("a < b <tool", "a < b <tool", []),
        (f"{ONE} and more", f"{ONE} and more", []),
        ("<tool_call>{'name': 'f'}</tool_call>",) * 2 + ([],),
        ('<tool_call>{"name": "f"}',) * 2 + ([],),
        ('<tool_call>["f"]</tool_call>',) * 2 + ([],),
        ("<tool_call><function=f></function></tool_call>",) * 2 + ([],),
        ('<tool_call>{"name": "f", "arguments": [1]}</tool_call>',) * 2 + ([],),
        (r'<tool_call>{"name": "f", "arguments": {"a": "\ud800"}}</tool_call>',) * 2 + ([],),
    ],
)
@pytest.mark.parametrize("size", [1, 5, 1000])
def test_only_whole_calls_are_read(text: str, shown: str, names: list[str], size: int) -> None:
    reader = ToolCallReader()
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    before = "".join(reader.push(part) for part in parts)
    rest, calls = reader.finish()
    assert before + rest == shown and [name for name, _ in calls] == names
