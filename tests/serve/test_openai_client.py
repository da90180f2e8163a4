"""What OpenAI's own client gets."""

from typing import Any

import openai
import pytest
import torch
from tests.support.models.tiny_programs import TEXT, Tiny

from quatrain.runtime.generation.generate import generate
from quatrain.runtime.load import load_runner
from quatrain.tokenizer import Tokenizer

# Not 8da4w: what is reused of the last text may round its activations otherwise.
GREEDY = {"model": "weight-only", "temperature": 0.0, "max_tokens": 8}
SAID = [{"role": "user", "content": f"{TEXT} "}]  # the template puts nothing between messages


@pytest.fixture(scope="module")
def alone(tiny: Tiny) -> list[int]:
    """The tokens that `TEXT` in a chat is answered with, without a server."""
    words = Tokenizer.load(tiny.checkpoint / "tokenizer.json")
    prompt = words.encode(words.apply_chat(SAID), add_special_tokens=False)
    runner = load_runner(tiny.programs["weight-only"], "reference")
    return generate(runner, prompt, context=64, max_new_tokens=8).tokens


def test_the_example_of_the_page(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
    answer = client.chat.completions.create(
        model="8da4w",
        messages=[{"role": "user", "content": "Why is the sky blue?"}],
        temperature=0,
    )
    print(answer.choices[0].message.content)
    assert capsys.readouterr().out.startswith("w")


def test_the_models_are_listed(strict: openai.OpenAI) -> None:
    names = [model.id for model in strict.models.list()]
    assert names == ["8da4w", "8da4w+dq8ca-zp-binding-float", "weight-only", "slow"]
    assert strict.models.retrieve("8da4w+dq8ca-zp-binding-float").model_extra == {
        "context": 64,
        "device": "reference",
        "emulates": "dq8ca-zp-binding-float",
        "can_emulate": [],
        "as_on": None,
        "chat": True,
    }


def test_a_chat_is_answered_as_the_program_does(strict: openai.OpenAI, alone: list[int]) -> None:
    answer = strict.chat.completions.create(messages=SAID, **GREEDY)
    (choice,) = answer.choices
    assert choice.message.content == " ".join(f"w{token}" for token in alone)
    assert choice.finish_reason == "length" and choice.message.role == "assistant"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (8, 8)


def test_a_stream_is_the_same_in_parts(strict: openai.OpenAI, alone: list[int]) -> None:
    chunks = list(
        strict.chat.completions.create(
            messages=SAID, stream=True, stream_options={"include_usage": True}, **GREEDY
        )
    )
    *parts, last, counted = chunks
    texts = [part.choices[0].delta.content or "" for part in parts]
    assert texts[0] == "" and parts[0].choices[0].delta.role == "assistant"
    assert texts[1:] == [f"w{alone[0]}", *(f" w{token}" for token in alone[1:])]
    assert last.choices[0].finish_reason == "length"
    assert counted.choices == [] and counted.usage and counted.usage.total_tokens == 16
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_text_is_continued_from_words_or_tokens(client: openai.OpenAI) -> None:
    words = client.completions.create(prompt="w1 " + TEXT, **GREEDY).choices[0].text
    ids = [1, *(int(word[1:]) for word in TEXT.split())]
    for prompt in (ids, ["w1 " + TEXT]):
        assert client.completions.create(prompt=prompt, **GREEDY).choices[0].text == words
    stream = client.completions.create(prompt=ids, stream=True, **GREEDY)
    assert "".join(chunk.choices[0].text for chunk in stream) == words


def test_a_defect_is_another_model(strict: openai.OpenAI) -> None:
    said = {"messages": SAID, "temperature": 0, "max_tokens": 8}
    broken, intact = (
        strict.chat.completions.create(model=name, **said).choices[0].message.content
        for name in ("8da4w+dq8ca-zp-binding-float", "8da4w")
    )
    assert broken != intact


def test_logprobs_are_those_of_the_programs_logits(
    strict: openai.OpenAI, tiny: Tiny, alone: list[int]
) -> None:
    runner = load_runner(tiny.programs["weight-only"], "reference")
    prompt = [1, *(int(word[1:]) for word in TEXT.split())]
    expected = torch.log_softmax(runner.forward(torch.tensor([prompt]), torch.tensor([0])), -1)[0]
    best = torch.topk(expected, 3)

    answer = strict.chat.completions.create(
        messages=SAID, logprobs=True, top_logprobs=3, **GREEDY
    ).choices[0]
    assert answer.logprobs and answer.logprobs.content
    assert [one.token for one in answer.logprobs.content] == [
        f"w{alone[0]}", *(f" w{token}" for token in alone[1:])
    ]  # fmt: skip
    first = answer.logprobs.content[0]
    assert bytes(first.bytes or []).decode() == first.token
    assert [one.token for one in first.top_logprobs] == [f"w{i}" for i in best.indices.tolist()]
    assert [one.logprob for one in first.top_logprobs] == pytest.approx(
        best.values.tolist(), abs=1e-3
    )

    older = strict.completions.create(prompt=prompt, logprobs=3, **GREEDY).choices[0]
    assert older.logprobs and older.logprobs.token_logprobs and older.logprobs.top_logprobs
    assert older.logprobs.token_logprobs[0] == first.logprob
    assert older.logprobs.tokens == [one.token for one in answer.logprobs.content]
    for token, offset in zip(older.logprobs.tokens, older.logprobs.text_offset or [], strict=True):
        assert older.text[offset : offset + len(token)] == token


def test_a_seed_makes_sampling_repeatable(strict: openai.OpenAI) -> None:
    def sampled(**fields: Any) -> str | None:
        said = {"model": "weight-only", "max_tokens": 12, "messages": SAID}
        return strict.chat.completions.create(**said, **fields).choices[0].message.content

    assert sampled(seed=7) == sampled(seed=7)
    assert len({sampled(seed=seed) for seed in (1, 2, -3)}) == 3
    assert len({sampled() for _ in range(3)}) > 1
    assert sampled(temperature=0) == sampled(seed=3, top_p=1e-9)
    assert sampled(temperature=0) == sampled(extra_body={"top_k": 1})
    assert sampled(temperature=0, top_p=0.5) != sampled(
        temperature=0, extra_body={"repetition_penalty": 5}
    )


def test_a_stop_string_ends_the_answer_and_is_not_in_it(strict: openai.OpenAI) -> None:
    whole = strict.chat.completions.create(messages=SAID, **GREEDY).choices[0].message.content
    assert whole
    words = whole.split()
    asked = {"messages": SAID, "stop": ["nothing", words[2]], **GREEDY}
    answer = strict.chat.completions.create(**asked).choices[0]
    assert answer.message.content == whole.split(words[2])[0] and answer.finish_reason == "stop"
    stream = list(strict.chat.completions.create(stream=True, **asked))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert text == answer.message.content
    assert stream[-1].choices[0].finish_reason == "stop"


def test_the_next_turn_computes_only_what_is_new(strict: openai.OpenAI) -> None:
    first = strict.chat.completions.create(messages=SAID, **GREEDY).choices[0].message
    said = [*SAID, first.model_dump(), {"role": "user", "content": "w3"}]
    cached = []
    for _ in range(2):
        usage = strict.chat.completions.create(messages=said, **GREEDY).usage
        assert usage and usage.prompt_tokens_details
        cached.append(usage.prompt_tokens_details.cached_tokens)
    assert cached[0] == 8 and cached[1] == usage.prompt_tokens - 1
