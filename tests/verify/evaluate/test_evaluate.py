"""Perplexity and divergence, against the same figures from the eager backbone's own logits."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from tests.support.command_line import invoked
from tests.support.comparisons.logits import step_logits
from tests.support.devices import DEVICES_OF
from tests.support.models.tiny_programs import Tiny
from tests.support.paths import ARTIFACTS

from quatrain.backbone.model import Backbone
from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.runtime.load import load_runner
from quatrain.verify.checks.layerwise import relative_error
from quatrain.verify.eager import load_eager
from quatrain.verify.evaluate.divergence import Divergence
from quatrain.verify.evaluate.evaluate import evaluate_models
from quatrain.verify.evaluate.evaluated_models import open_evaluated_model
from quatrain.verify.evaluate.windows import window_logits

TOKENS = [(i * 37 + i * i) % 96 for i in range(100)]  # longer than the context of 64
TEXT = " ".join(f"w{token}" for token in TOKENS)
DEFECT = "dq8ca-zp-binding-float"
DEVICES = DEVICES_OF["vulkan"]


def _eager_logits(tiny: Tiny, scheme: str) -> torch.Tensor:
    """One step a token, the context emptied after 64; in 8da4w, which a step computes otherwise,
    the last logits of one prompt a token."""
    eager = load_eager(tiny.checkpoint, scheme)
    pieces = TOKENS[:64], TOKENS[64:]
    if scheme == "weight-only":
        return torch.cat([step_logits(eager, piece) for piece in pieces])
    prompts = [piece[:length] for piece in pieces for length in range(1, len(piece) + 1)]
    return torch.cat([_prefill(eager, prompt) for prompt in prompts])


@torch.inference_mode()
def _prefill(eager: Backbone, prompt: list[int]) -> torch.Tensor:
    """The logits [1, V] after the prompt. One of a single token is read as the first of two, since
    it would be a step of decode."""
    eager.reset()
    if len(prompt) > 1:
        return eager(torch.tensor([prompt]), torch.tensor([0]))
    hidden = eager.hidden(torch.tensor([[*prompt, 0]]), 0)
    return eager.logits(hidden[:, 0])


def _perplexity(logits: torch.Tensor) -> float:
    logs = torch.log_softmax(logits.double(), -1)
    places = [i for i in range(99) if i != 63]
    return math.exp(-sum(float(logs[i, TOKENS[i + 1]]) for i in places) / len(places))


@pytest.mark.parametrize("scheme", ["8da4w", "weight-only"])
@pytest.mark.parametrize("device", DEVICES)
def test_a_program_and_its_checkpoint_are_as_good(tiny: Tiny, scheme: str, device: str) -> None:
    models = [tiny.checkpoint, tiny.programs[scheme]]
    eager, program = evaluate_models(models, TEXT, device=device, scheme=scheme)
    assert eager.predicted == program.predicted == 98
    assert eager.device == f"eager, {scheme}" and eager.against_first is None
    expected = _perplexity(_eager_logits(tiny, scheme))
    # In 8da4w a sum that rounds the other way, as in a step of another length, moves an int8.
    rounding = 1e-2 if scheme == "8da4w" else 1e-5
    assert eager.perplexity == pytest.approx(expected, rel=rounding)
    assert program.perplexity == pytest.approx(expected, rel=rounding)
    assert program.loss == pytest.approx(math.log(program.perplexity))
    assert program.against_first is not None
    assert program.against_first.kl < rounding and program.against_first.top1_agreement > 0.9


def test_divergence_is_what_its_definition_says(tiny: Tiny) -> None:
    models = [tiny.programs["8da4w"], tiny.programs["weight-only"]]
    _, other = evaluate_models(models, TEXT, device="reference")
    want = torch.log_softmax(_eager_logits(tiny, "8da4w").double(), -1)
    got = torch.log_softmax(_eager_logits(tiny, "weight-only").double(), -1)
    kl = float((want.exp() * (want - got)).sum(-1).mean())
    same = float((want.argmax(-1) == got.argmax(-1)).double().mean())
    assert other.against_first is not None
    assert other.against_first.kl == pytest.approx(kl, rel=0.1)
    assert other.against_first.top1_agreement == pytest.approx(same, abs=0.05)


def test_a_model_against_itself(tiny: Tiny) -> None:
    model = tiny.programs["weight-only"]
    _, same = evaluate_models([model, model], TEXT, tokens=20, device="reference")
    assert same.predicted == 19
    assert same.against_first == Divergence(0.0, 1.0)


@pytest.mark.parametrize("device", DEVICES)
def test_an_emulated_defect_changes_8da4w_and_spares_weight_only(tiny: Tiny, device: str) -> None:
    models = [tiny.programs["8da4w"], tiny.programs["weight-only"]]
    whole = evaluate_models(models, TEXT, 40, device)
    broken = evaluate_models(models, TEXT, 40, device, DEFECT)
    assert broken[0].loss != whole[0].loss  # random weights have no perplexity to lose
    assert broken[1].loss == whole[1].loss
    eager, program = evaluate_models([tiny.checkpoint, models[0]], TEXT, 40, device, DEFECT)
    assert eager.loss == pytest.approx(whole[0].loss, rel=1e-2)  # a checkpoint has no kernels
    assert program.against_first is not None and program.against_first.kl > 0.1


def test_an_xnnpack_program_runs_on_executorch(tiny_xnnpack: Path, tiny: Tiny) -> None:
    eager, program = evaluate_models([tiny.checkpoint, tiny_xnnpack], TEXT)
    assert program.device == "executorch"
    assert program.perplexity == pytest.approx(eager.perplexity, rel=0.05)
    with pytest.raises(InputError, match="--emulate is for Vulkan programs"):
        evaluate_models([tiny_xnnpack], TEXT, emulate=DEFECT)


def _run(*arguments: object, device: str = "reference") -> str:
    words = ["evaluate", *map(str, arguments), "--device", device]
    return invoked(words, catch_exceptions=False).stdout


def test_the_verb_prints_a_table_and_json(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    arguments = (tiny.programs["8da4w"], "--reference", tiny.checkpoint, "--text", text)
    table = _run(*arguments)
    assert "checkpoint" in table and "8da4w.pte" in table and "98 tokens predicted" in table
    assert "\ncheckpoint: eager, 8da4w\n" in table and "\n8da4w.pte: reference" in table
    lines = table.splitlines()
    rows = lines[: lines.index("98 tokens predicted")]
    assert rows[0].split("  ")[-1] == "tokens/s" and {len(row) for row in rows} == {len(rows[0])}
    assert max(map(len, rows)) <= 95 and "%" in rows[-1] and "%" not in rows[1]
    found = json.loads(_run(*arguments, "--json"))["models"]
    assert [Path(one["model"]) for one in found] == [tiny.checkpoint, tiny.programs["8da4w"]]
    assert found[0]["against_first"] is None and found[1]["against_first"]["kl"] < 1e-2
    monkeypatch.chdir(tiny.checkpoint)
    assert "\ncheckpoint  prefill " in _run(".", "--text", text, device="auto")


def test_the_built_in_text_is_read_without_one(tiny: Tiny) -> None:
    found = json.loads(_run(tiny.programs["8da4w"], "--tokens", 30, "--json"))
    assert found["text"] == "built-in" and found["models"][0]["predicted"] == 29


def test_of_one_token_no_error_is_shown(tiny: Tiny) -> None:
    table = _run(tiny.checkpoint, tiny.programs["8da4w"], "--tokens", 2)
    row = table.splitlines()[3].split()
    assert row[:2] == ["8da4w.pte", "prefill"] and row[3] == "1.000"
    assert "nan" not in table and "+-" not in table
    assert "\n1 token predicted\n" in table


def test_models_of_one_name_are_distinguished(tiny: Tiny, tmp_path: Path) -> None:
    again = Path(shutil.copy(tiny.programs["8da4w"], tmp_path))
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    table = _run(tiny.programs["8da4w"], again, "--text", text, "--tokens", 5)
    assert f"\n{again} " in table and f"\n{tiny.programs['8da4w']} " in table


def test_wrong_requests_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny.programs["8da4w"]
    for no_list, message in (([], "models is empty"), (str(model), "models is .*expected a list"),
                             (model, "models is .*expected a list")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            evaluate_models(no_list, TEXT)
    for tokens in (1, 0, -3):  # where the text has more
        with pytest.raises(InputError, match=f"tokens is {tokens}, expected 2 or more"):
            evaluate_models([model], TEXT, tokens=tokens)
    with pytest.raises(InputError, match="fewer than two tokens"):
        evaluate_models([model], "w1")
    with pytest.raises(InputError, match="--scheme is for checkpoints, and none is given"):
        _run(model, "--scheme", "8da4w")
    with pytest.raises(InputError, match="--as-on pixel-8 is for programs, and checkpoints in 8da"):
        evaluate_models([tiny.checkpoint], TEXT, scheme=Scheme.WEIGHT_ONLY, as_on="pixel-8")
    with pytest.raises(InputError, match="cannot be emulated"):
        evaluate_models([model], TEXT, emulate="fire")
    with pytest.raises(InputError, match="cannot be read as text"):
        _run(model, "--text", tmp_path / "none.txt")
    with pytest.raises(InputError, match="only models of one vocabulary"):
        evaluate_models([model, ARTIFACTS / "peer-8da4w-fp32.pte"], TEXT)


@pytest.mark.parametrize("device", DEVICES)
def test_8da4w_is_measured_as_it_prefills_and_as_it_decodes(tiny: Tiny, device: str) -> None:
    """A phone computes decoded tokens on floating-point activations, as weight-only does."""
    models = [tiny.checkpoint, tiny.programs["8da4w"], tiny.programs["weight-only"]]
    checkpoint, dynamic, weight_only = evaluate_models(models, TEXT, device=device)
    assert (dynamic.regime, weight_only.regime, weight_only.decode) == ("prefill", None, None)
    assert dynamic.decode is not None and checkpoint.decode is not None
    assert dynamic.decode.regime == "decode"
    assert dynamic.decode.loss == pytest.approx(weight_only.loss, rel=1e-6)
    assert dynamic.loss != pytest.approx(weight_only.loss, rel=1e-6)
    # Each regime is held against the checkpoint's own.
    assert dynamic.decode.against_first is not None and dynamic.decode.against_first.kl < 1e-7
    table = _run(*models, "--tokens", 40, device=device)
    assert table.count(" prefill") >= 2 and table.count(" decode") >= 2


@pytest.mark.parametrize("device", DEVICES)
def test_decode_of_a_float16_program_is_what_its_steps_are(device: str) -> None:
    """Of several rows the linears, weight-only then, would be summed in float16: off by 2e-3."""
    program, tokens = ARTIFACTS / "peer-8da4w-fp16-emb4.pte", [token % 64 for token in TOKENS[:24]]
    opened = open_evaluated_model(program, device, None, Scheme.DYNAMIC_INT8, "evaluate")
    assert opened.load_decode is not None
    found = torch.cat(list(window_logits(opened.load_decode(), tokens, opened.window)))
    assert relative_error(found, step_logits(load_runner(program, device), tokens)) < 1e-3


def test_a_checkpoint_beside_an_xnnpack_program_quantizes_every_row(
    tiny: Tiny, tiny_xnnpack: Path
) -> None:
    checkpoint, program = evaluate_models([tiny.checkpoint, tiny_xnnpack], TEXT)
    assert checkpoint.device == "eager, 8da4w as on XNNPACK"
    assert checkpoint.decode is None and program.decode is None
