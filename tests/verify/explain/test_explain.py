"""`quatrain explain`: what each mistake makes a phone write is called by its name."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.support.command_line import invoked
from tests.support.models.tiny_programs import TEXT, Tiny

from quatrain.arithmetic import (
    VULKAN_ARITHMETIC,
    VULKAN_WITHOUT_DOT_PRODUCTS,
    XNNPACK_ARITHMETIC,
    Arithmetic,
)
from quatrain.errors import InputError
from quatrain.runtime.generation.generate import generate
from quatrain.runtime.generation.sampling import Sampling
from quatrain.runtime.load import load_runner
from quatrain.runtime.reference import ReferenceRunner
from quatrain.tokenizer import Tokenizer, find_tokenizer
from quatrain.verify.expected import ExpectedProgram, expected_answers, write_expected
from quatrain.verify.explain.computed_program import ComputedProgram
from quatrain.verify.explain.decoding import restored
from quatrain.verify.explain.explain import explain_output
from quatrain.verify.explain.phone_output import PhoneOutput, read_phone_output

FLOAT, INT8 = "dq8ca-zp-binding-float", "dq8ca-zp-binding-int8"
Writes = Callable[..., list[int]]


@pytest.fixture(scope="module")
def words(tiny: Tiny) -> Tokenizer:
    return Tokenizer.load(find_tokenizer(tiny.programs["8da4w"]))


@pytest.fixture(scope="module")
def writes(tiny: Tiny, words: Tokenizer) -> Writes:
    """The token ids that a phone writes after a prompt."""

    def write(scheme="8da4w", defect=None, temperature=0.0, prompt=TEXT, count=24) -> list[int]:
        runner = ReferenceRunner(tiny.programs[scheme], defect)
        found = generate(
            runner, words.encode(prompt), context=64, max_new_tokens=count,
            sampling=Sampling(temperature=temperature, seed=1),
        )  # fmt: skip
        return found.tokens

    return write


def shown(words: Tokenizer, ids: list[int]) -> PhoneOutput:
    return PhoneOutput(text=f"\n {words.decode(ids)}\n")


@pytest.mark.parametrize("defect", [FLOAT, INT8])
def test_a_defect_is_named_with_what_mends_it(
    defect: str, tiny: Tiny, words: Tokenizer, writes: Writes
) -> None:
    found = explain_output(shown(words, writes(defect=defect)), tiny.programs["8da4w"], TEXT)
    assert (found.cause, found.candidate) == ("defect", defect)
    assert found.remedy is not None and "--linear-scheme weight-only" in found.remedy
    # 8da4w in fp32 has int8 zero points, which no release reads wrongly.
    assert found.remedy.startswith("doctor does not find this defect here")
    assert found.evidence[0] == f"24 of 24 tokens are the likeliest ones under {defect}"


@pytest.mark.parametrize("scheme", ["8da4w", "weight-only"])
@pytest.mark.parametrize(("temperature", "cause"), [(0.0, "right"), (0.5, "sampling")])
def test_health_is_health(
    scheme: str, temperature: float, cause: str, tiny: Tiny, words: Tokenizer, writes: Writes
) -> None:
    ids = writes(scheme, temperature=temperature)
    found = explain_output(shown(words, ids), tiny.programs[scheme], TEXT)
    assert (found.cause, found.candidate) == (cause, "right")
    assert found.remedy is None or "nothing is broken" in found.remedy
    if cause == "sampling":  # else none can be likelier, and none is computed
        unchanged = {one.id for one in found.candidates if one.changes_nothing}
        # The tiny prompts and groups have the trigger of neither.
        assert {"dq8ca-m-gt-k", "dq8ca-group-sums"} <= unchanged


@pytest.mark.parametrize(
    ("ours", "theirs", "arithmetic"),
    [
        ("8da4w", "weight-only", VULKAN_WITHOUT_DOT_PRODUCTS),
        ("weight-only", "8da4w", VULKAN_ARITHMETIC),
    ],
)
def test_either_scheme_is_computed_from_the_other(
    ours: str, theirs: str, arithmetic: Arithmetic, tiny: Tiny
) -> None:
    """A model so small writes the same in both, so it is the logits that are compared."""
    prompt = list(range(3, 23))
    for tokens in (prompt, prompt[::-1]):
        found = ComputedProgram(tiny.programs[ours]).read_prompt(tokens, arithmetic)
        expected = ReferenceRunner(tiny.programs[theirs])
        rows = expected.forward(torch.tensor([tokens]), torch.tensor([0]))
        torch.testing.assert_close(found, rows[0], rtol=1e-4, atol=1e-5)
        other = ReferenceRunner(tiny.programs[ours])
        assert not torch.allclose(other.forward(torch.tensor([tokens]), torch.tensor([0])), rows)


def test_a_phone_without_dot_products_is_right_as_weight_only(
    tiny: Tiny, words: Tokenizer, writes: Writes
) -> None:
    output = shown(words, writes("weight-only"))
    found = explain_output(output, tiny.programs["8da4w"], TEXT, phone="mali-g76", runtime="1.5")
    assert found.cause == "right"
    assert "weight-only" not in {one.id for one in found.candidates}


def test_a_template_left_out_is_named(tiny: Tiny, words: Tokenizer, writes: Writes) -> None:
    program = tiny.programs["8da4w"]
    ids = writes(prompt=TEXT)
    found = explain_output(shown(words, ids), program, TEXT, chat=True)
    assert (found.cause, found.candidate) == ("template", "template-left-out")
    doubled = writes(prompt=f"w1 w1 {TEXT}")
    found = explain_output(shown(words, doubled), program, TEXT, chat=True)
    assert (found.cause, found.candidate) == ("template", "template-doubled")
    assert found.remedy is not None and "once" in found.remedy


def test_what_was_pasted_may_be_cut_and_hold_the_prompt(
    tiny: Tiny, words: Tokenizer, writes: Writes
) -> None:
    ids, program = writes(), tiny.programs["8da4w"]
    for output in (
        PhoneOutput(tokens=ids),
        PhoneOutput(tokens=[*words.encode(TEXT), *ids[:9]]),
        PhoneOutput(text=f"{TEXT} {words.decode(ids)}"[:-1]),
        PhoneOutput(text=words.decode(ids).replace(" ", "\u00a0", 1)),
    ):
        assert explain_output(output, program, TEXT).cause == "right", output


def test_an_output_of_no_known_computation_is_unknown(
    tiny: Tiny, words: Tokenizer, writes: Writes
) -> None:
    program = tiny.programs["8da4w"]
    found = explain_output(PhoneOutput(tokens=[7] * 30), program, TEXT)
    assert (found.cause, found.candidate) == ("unknown", None)
    found = explain_output(PhoneOutput(tokens=writes()[:16] + [7] * 40), program, TEXT)
    assert found.cause == "right at first"
    assert "up to token 16" in found.statement


def test_ids_and_a_text_that_do_not_belong_together(
    tiny: Tiny, words: Tokenizer, writes: Writes
) -> None:
    ids = writes()
    output = PhoneOutput(text="sea of zebras, on and on", tokens=ids)
    found = explain_output(output, tiny.programs["8da4w"], TEXT)
    assert (found.cause, found.candidate) == ("tokenizer", "right")
    assert found.remedy is not None and str(find_tokenizer(tiny.programs["8da4w"])) in found.remedy


def test_pieces_of_a_vocabulary_are_read() -> None:
    byte_level = "The\u0120sea\u0120is\u010ablue"
    text, wrong = restored(PhoneOutput(text=byte_level))
    assert text.text == "The sea is\nblue" and wrong
    assert restored(PhoneOutput(text="The sea")) == (PhoneOutput(text="The sea"), None)


def test_an_xnnpack_program_runs_on_executorch(tiny_xnnpack: Path, words: Tokenizer) -> None:
    runner = load_runner(tiny_xnnpack, "executorch")
    ids = generate(runner, words.encode(TEXT), context=64, max_new_tokens=12).tokens
    found = explain_output(shown(words, ids), tiny_xnnpack, TEXT, phone="pixel-8")
    assert found.notes[-1].startswith("--phone pixel-8 changes nothing here: the program is for")
    assert found.cause == "right"
    assert all(one.cause != "defect" for one in found.candidates)


def test_expected_json_knows_the_prompt(
    tiny: Tiny, words: Tokenizer, writes: Writes, tmp_path: Path
) -> None:
    program, expected = tiny.programs["8da4w"], tmp_path / "expected.json"
    other = "w3 w9 w27 w81"
    answers = expected_answers(program, [other, TEXT], max_new_tokens=12)
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    write_expected(expected, {"model.pte": ExpectedProgram(digest, answers)})
    found = explain_output(shown(words, writes()), program, expected=expected)
    assert found.cause == "right"
    assert "expected.json has the same 12 tokens" in found.evidence
    garbled = shown(words, writes(defect=FLOAT))
    with pytest.raises(InputError, match=f"has several prompts.*{TEXT}"):
        explain_output(garbled, program, expected=expected)
    found = explain_output(garbled, program, TEXT, expected=expected)
    assert found.candidate == FLOAT
    assert found.evidence[-1].startswith("expected.json has the same first 0 tokens, then 'w")
    with pytest.raises(InputError, match=r"is none of .*expected\.json, which has 'w3 w9"):
        explain_output(garbled, program, "another", expected=expected)
    with pytest.raises(InputError, match="without a chat template"):
        explain_output(garbled, program, TEXT, chat=True, expected=expected)
    with pytest.raises(InputError, match="its SHA-256 is"):
        explain_output(garbled, tiny.programs["weight-only"], TEXT, expected=expected)


def test_rows_at_once_are_the_steps_of_a_phone(tiny: Tiny, writes: Writes) -> None:
    """And one runner that computes as another does is that one, its context kept."""
    ids, prompt = writes(defect=INT8), [5, 17, 40, 9]
    model = ComputedProgram(tiny.programs["8da4w"])
    single = ReferenceRunner(tiny.programs["8da4w"], INT8)
    first = model.read_prompt(prompt, VULKAN_ARITHMETIC, INT8)
    rows = model.read_answer(ids, len(prompt))
    expected = [single.forward(torch.tensor([prompt]), torch.tensor([0]))]
    expected += [
        single.forward(torch.tensor([[one]]), torch.tensor([4 + place]))
        for place, one in enumerate(ids)
    ]
    torch.testing.assert_close(torch.cat([first[None], rows]), torch.cat(expected))
    everywhere = ReferenceRunner(tiny.programs["8da4w"], arithmetic=XNNPACK_ARITHMETIC)
    single.compute_as(XNNPACK_ARITHMETIC)
    single.reset()
    inputs = torch.tensor([prompt]), torch.tensor([0])
    assert torch.equal(single.forward(*inputs), everywhere.forward(*inputs))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[3, 1, 4]", PhoneOutput(tokens=[3, 1, 4])),
        ("3 1\n4\n", PhoneOutput(tokens=[3, 1, 4])),
        ("42", PhoneOutput(text="42")),
        ("3, 1, 4", PhoneOutput(text="3, 1, 4")),
        ('{"text": "3 1", "tokens": [3]}', PhoneOutput("3 1", [3])),
    ],
)
def test_a_pasted_file_is_text_or_ids(content: str, expected: PhoneOutput, tmp_path: Path) -> None:
    (tmp_path / "phone.txt").write_text(content)
    assert read_phone_output(tmp_path / "phone.txt") == expected


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", [], r"phone.txt: is empty.* ended at once, .*\[2\]"),
        ("[]", [], "phone.txt: is empty"),
        ('{"words": 1}', [], "JSON object with words; expected"),
        ("[3, 960]", ["--prompt", TEXT], "token id 960 is not in the vocabulary"),
        ("w3", [], "no --prompt: give the prompt that the phone got"),
        ("w3", ["--prompt", TEXT, "--phone", "pixel-99"], "no profile of a device 'pixel-99'"),
        ("w3", ["--prompt", "w1 " * 64], "the prompt has 64 tokens"),
        (TEXT, ["--prompt", TEXT, "--runtime", "0.1"], "0.1"),
    ],
)
def test_bad_requests_are_refused(
    content: str, options: list[str], message: str, tiny: Tiny, tmp_path: Path
) -> None:
    (tmp_path / "phone.txt").write_text(content)
    program = str(tiny.programs["8da4w"])
    asked = ["explain", str(tmp_path / "phone.txt"), "--program", program, *options]
    with pytest.raises(InputError, match=message):
        invoked(asked, catch_exceptions=False)


def test_what_is_no_program_is_said_before_its_tokenizer_is_missed(tmp_path: Path) -> None:
    (tmp_path / "phone.txt").write_text(TEXT)
    with pytest.raises(InputError, match=r"phone.txt: has b'.*' at byte 4, expected 'ET12'"):
        explain_output(PhoneOutput(TEXT), tmp_path / "phone.txt", TEXT)


def test_the_verb_prints_and_has_json(tiny: Tiny, writes: Writes, tmp_path: Path) -> None:
    (tmp_path / "phone.txt").write_text(json.dumps(writes(defect=FLOAT)))
    asked = ["explain", str(tmp_path / "phone.txt"), "--program", str(tiny.programs["8da4w"])]
    asked += ["--prompt", TEXT, "--phone", "mali-g715", "--runtime", "1.3"]
    said = invoked(asked).stdout
    assert said.startswith(f"It is a known defect's output: {FLOAT}")
    assert "\nfix: " in said and "likeliest tokens" in said
    found = json.loads(invoked([*asked, "--json"]).stdout)
    assert found["candidate"] == FLOAT and found["candidates"][0]["agreeing"] == 24
