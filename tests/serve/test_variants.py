"""Programs with emulated defects that are loaded once somebody asks for them."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import openai
import pytest
from tests.support.command_line import invoked
from tests.support.defects.kernel_defects import dynamic, embedding
from tests.support.models.tiny_programs import Tiny
from tests.support.pages.servers import client_of, served
from tests.support.programs import artifact

from quatrain.errors import InputError
from quatrain.program import open_program
from quatrain.runtime.defects import EmulatedDefect
from quatrain.runtime.emulatable import emulatable_defects, why_unchanged
from quatrain.serve.limits import Limits
from quatrain.serve.models.served_models import ServedModel, load_models

INT8, FLOAT, ROWS = "dq8ca-zp-binding-int8", "dq8ca-zp-binding-float", "dq8ca-m-gt-k"


def _asked(client: openai.OpenAI, model: str) -> list[str]:
    found = client.completions.create(
        model=model, prompt="w5 w17 w40", temperature=0, max_tokens=8, logprobs=1
    )
    assert found.model == model and found.choices[0].logprobs
    return found.choices[0].logprobs.tokens or []


def test_a_program_says_which_defects_change_it(tiny: Tiny, tmp_path: Path) -> None:
    def of(path: Path) -> list[str]:
        return [str(one) for one in emulatable_defects(open_program(path))]

    assert of(tiny.programs["8da4w"]) == [FLOAT, INT8, ROWS]
    assert of(tiny.programs["weight-only"]) == of(artifact("peer-xnnpack-8da4w")) == []
    assert of(dynamic(group_size=256)(tmp_path)) == [FLOAT, INT8, ROWS, "dq8ca-group-sums"]
    assert of(embedding("height_packed")(tmp_path)) == ["embedding-height-packed"]


def test_what_a_defect_leaves_as_it_is_is_said(tiny: Tiny) -> None:
    dynamic, other = map(open_program, (tiny.programs["8da4w"], tiny.programs["weight-only"]))
    said = f"{FLOAT} changes nothing of {other.path}: no operator there has it"
    assert why_unchanged(other, FLOAT) == said
    for defect, least in ((FLOAT, 2), (ROWS, 65)):  # its linears have 64 inputs
        said = f"{defect} changes no prompt of fewer than {least} tokens; this one has {least - 1}"
        assert why_unchanged(dynamic, defect, least - 1) == said
        assert why_unchanged(dynamic, defect, least) is None
    words = invoked(
        ["run", dynamic.path, "--prompt", "w5 w17", "--emulate", FLOAT, "--as-on", "mali-g76",
         "--device", "reference", "--max-new-tokens", "1"]
    ).stderr  # fmt: skip
    assert f"warning: {FLOAT} changes nothing of {dynamic.path} as on Vulkan without" in words


def test_a_program_that_a_defect_leaves_as_it_is_is_loaded_once(tiny: Tiny) -> None:
    words, programs = tiny.checkpoint / "tokenizer.json", tiny.programs
    both = [programs["8da4w"], programs["weight-only"]]
    found = load_models(both, tokenizer=words, device="reference", emulate=[FLOAT, FLOAT])
    assert [model.name for model in found] == ["8da4w", f"8da4w+{FLOAT}", "weight-only"]
    for paths, as_on in ((both[1:], None), (both, "mali-g76")):
        with pytest.raises(InputError, match=f"--emulate {FLOAT}: does not change what"):
            load_models(paths, tokenizer=words, emulate=[FLOAT], as_on=as_on)


def test_each_program_is_offered_with_its_defects(client: openai.OpenAI) -> None:
    found = {model.id: model.to_dict() for model in client.models.list()}
    assert found["8da4w"]["can_emulate"] == [INT8, ROWS]  # FLOAT was loaded at the start
    assert found["weight-only"]["can_emulate"] == found[f"8da4w+{FLOAT}"]["can_emulate"] == []
    one = client.models.retrieve(f"8da4w+{INT8}").to_dict()
    assert one == found["8da4w"] | {"id": f"8da4w+{INT8}", "emulates": INT8, "can_emulate": []}


def test_it_answers_as_one_that_was_loaded_at_the_start(tiny: Tiny) -> None:
    words, program = tiny.checkpoint / "tokenizer.json", tiny.programs["8da4w"]
    at_start = load_models([program], tokenizer=words, device="reference", emulate=[FLOAT])
    with served(at_start) as url:
        expected = _asked(client_of(url), f"8da4w+{FLOAT}")
    with served(at_start[:1], Limits(variants=1)) as url:
        client = client_of(url)
        # The second takes the first one's place, which is loaded again.
        for name in (f"8da4w+{FLOAT}", f"8da4w+{INT8}", f"8da4w+{FLOAT}"):
            found = _asked(client, name)
        assert found == expected != _asked(client, "8da4w")


def test_one_that_was_loaded_for_a_request_answers_it(slow: ServedModel) -> None:
    """Though others want its place meanwhile."""
    defects = (EmulatedDefect(INT8), EmulatedDefect(FLOAT))
    model = replace(
        slow, can_emulate=defects, with_defect=lambda one: replace(slow, name=f"slow+{one}")
    )
    with served([model], Limits(variants=1)) as url, ThreadPoolExecutor(4) as pool:
        client = client_of(url)

        def ask(defect: EmulatedDefect) -> str:
            said = {"model": f"slow+{defect}", "prompt": [5], "max_tokens": 1, "temperature": 0}
            return client.completions.create(**said).choices[0].text

        assert set(pool.map(ask, defects * 6)) == {"w7"}


def test_no_more_are_loaded_than_may_be(slow: ServedModel) -> None:
    defects = (EmulatedDefect(INT8), EmulatedDefect(FLOAT))
    model = replace(
        slow, can_emulate=defects, with_defect=lambda one: replace(slow, name=f"slow+{one}")
    )
    with served([model], Limits(variants=1)) as url:
        client = client_of(url)
        stream = client.completions.create(
            model=f"slow+{INT8}", prompt="w5", max_tokens=1000, stream=True
        )
        next(iter(stream))
        with pytest.raises(
            openai.RateLimitError,
            match=r"programs .* at a time \(--max-variants 1\) are already busy",
        ):
            _asked(client, f"slow+{FLOAT}")
        stream.close()
    with served([model], Limits(variants=0)) as url:
        assert [one.to_dict()["can_emulate"] for one in client_of(url).models.list()] == [[]]
        with pytest.raises(openai.NotFoundError, match=f"there is no model 'slow.{INT8}'"):
            _asked(client_of(url), f"slow+{INT8}")
