"""Floating-point models evaluated: transformers' own loss, windows, and what is paired."""

import json
import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers
from tests.support.command_line import invoked
from tests.support.models.peers import random_model, saved

from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.quantize.pipeline import quantize_model
from quatrain.verify.evaluate.evaluate import evaluate_models
from quatrain.verify.evaluate.evaluation_log import evaluation_log
from quatrain.verify.evaluate.windows import cut

TOKENS = [(i * 37 + i * i) % 96 for i in range(150)]  # longer than the context of 64
TEXT = " ".join(f"w{token}" for token in TOKENS)


@pytest.fixture(scope="module")
def peer() -> transformers.PreTrainedModel:
    return random_model("Llama", tie_word_embeddings=True, max_position_embeddings=64)


@pytest.fixture(scope="module")
def model(peer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = saved(peer, tmp_path_factory.mktemp("float") / "model")
    words = tokenizers.models.WordLevel({f"w{i}": i for i in range(96)}, unk_token="w0")
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def int4(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("float") / "int4"
    quantize_model(model, folder, method="rtn")
    return folder


@torch.inference_mode()
def losses(peer: transformers.PreTrainedModel, ids: list[int]) -> torch.Tensor:
    """By transformers, of each token but the first."""
    logits = peer(torch.tensor([ids])).logits[0, :-1].double()
    return torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")


def test_the_loss_is_that_of_transformers(peer, model: Path) -> None:
    (found,) = evaluate_models([model], TEXT)
    expected = torch.cat([losses(peer, TOKENS[at : at + 64]) for at in (0, 64, 128)])
    assert found.predicted == len(expected) == 147
    assert found.loss == pytest.approx(float(expected.mean()), abs=1e-4)
    assert found.perplexity == pytest.approx(math.exp(expected.mean()), rel=1e-4)
    assert found.device == "eager, floating point"
    read = sum(len(" ".join(f"w{i}" for i in TOKENS[at + 1 : at + 64])) for at in (0, 64, 128))
    bits = float(expected.sum()) / math.log(2)
    assert found.bits_per_byte == pytest.approx(bits / read, rel=1e-4)


def test_each_chunk_begins_with_what_begins_a_text(peer, model: Path, tmp_path: Path) -> None:
    """A model that was trained so predicts little without it."""
    tokenizer = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="w1 $A w2", special_tokens=[("w1", 1), ("w2", 2)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (found,) = evaluate_models([model], TEXT, tokenizer=tmp_path / "tokenizer.json")
    ids = [*TOKENS, 2]
    expected = torch.cat([losses(peer, [1, *ids[at : at + 63]]) for at in (0, 63, 126)])
    assert found.predicted == len(expected) == 151
    assert found.loss == pytest.approx(float(expected.mean()), abs=1e-4)


@pytest.mark.parametrize("stride", [16, 50, 63])
def test_with_a_stride_each_token_is_predicted_once_from_more(peer, model, stride: int) -> None:
    (found,) = evaluate_models([model], TEXT, stride=stride)
    expected, predicted = [], 0
    for at in range(0, len(TOKENS), stride):
        last = min(at + 64, len(TOKENS)) - 1
        if last > predicted:
            expected.append(losses(peer, TOKENS[at : last + 1])[predicted - at :])
            predicted = last
    assert found.predicted == 149
    assert found.loss == pytest.approx(float(torch.cat(expected).mean()), abs=1e-4)


def test_chunks_count_every_token_once() -> None:
    for length, stride in ((8, 3), (8, 7), (5, 1)):
        chunks = cut([], list(range(30)), length, stride)
        predicted = [token for c in chunks for token in c.ids[c.first + 1 : c.last + 1]]
        assert predicted == list(range(1, 30))


def test_every_chunk_begins_as_a_text_does() -> None:
    for begin, stride in (([97], None), ([97], 3), ([97], 7), ([97, 98], 6), ([97, 98], None)):
        chunks = cut(begin, list(range(30)), 8, stride)
        assert all(chunk.ids[: len(begin)] == begin and len(chunk.ids) <= 8 for chunk in chunks)
        predicted = [token for c in chunks for token in c.ids[c.first + 1 : c.last + 1]]
        assert predicted == list(range(30))


def test_a_checkpoint_against_floating_point(peer, model: Path, int4: Path) -> None:
    """The error is that of the differences, which is far less than that of either loss."""
    whole, rounded = evaluate_models([model, int4], TEXT, scheme=Scheme.WEIGHT_ONLY)
    assert whole.perplexity_ratio is None and rounded.perplexity_ratio is not None
    assert rounded.perplexity_ratio == pytest.approx(math.exp(rounded.loss - whole.loss))
    assert rounded.perplexity_ratio_error is not None
    assert 0 < rounded.perplexity_ratio_error < 0.5 * rounded.perplexity * rounded.loss_error
    assert rounded.against_first is not None and 0 < rounded.against_first.kl < 0.1


def test_the_verb_takes_it_as_a_reference(model: Path, int4: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    words = ["evaluate", int4, "--reference", model, "--text", text, "--scheme", "weight-only"]
    table = invoked([*map(str, words), "--stride", "32"]).stdout
    assert "floating point" in table and "ratio" in table and "149 tokens predicted" in table
    found = json.loads(invoked([*map(str, words), "--json"]).stdout)
    assert found["models"][1]["perplexity_ratio"] > 0


def test_the_verb_says_what_it_waits_for(model: Path, int4: Path) -> None:
    """In a log too: a bar there is none of, and a large model takes minutes."""
    said = invoked(["evaluate", int4, "--reference", model, "--tokens", "20"]).stderr
    stages = [line.rpartition("  ")[0].strip() for line in said.splitlines()]
    # 8da4w is read as it prefills and as it decodes
    assert stages == ["open the models", "measure model", "measure int4", "measure int4"]


def test_the_word_smollm2_is_one(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr("quatrain.smollm2.fetch_smollm2", lambda: model)
    monkeypatch.chdir(tmp_path)
    said = invoked(["evaluate", "smollm2", "--tokens", "20", "--json"])
    assert json.loads(said.stdout)["models"][0]["model"] == str(model)


LONGER = f"{TEXT} {TEXT} {TEXT}"  # 8 chunks of 64 tokens at most
KILLED = """
import os, signal, sys
from pathlib import Path
from quatrain.verify.evaluate.evaluate import evaluate_models

def progress(model, done, total):
    if model.name == "int4" and done > total // 2:
        os.kill(os.getpid(), signal.SIGKILL)

models, text, folder = sys.argv[1:3], sys.argv[3], Path(sys.argv[4])
evaluate_models(models, text, progress=progress, scheme="weight-only", resume=folder)
"""


def test_a_killed_evaluation_goes_on_with_the_same_figures(model, int4, tmp_path) -> None:
    folder = tmp_path / "state"
    killed = [sys.executable, "-c", KILLED, model, int4, LONGER, folder]
    assert subprocess.run(list(map(str, killed))).returncode == -signal.SIGKILL
    steps = (folder / "progress.jsonl").read_text().splitlines()[1:]
    rows = [json.loads(step)["row"] for step in steps]
    assert rows.count("0") > rows.count("1") > 0
    with (folder / "progress.jsonl").open("a") as log:
        log.write(steps[-1][:40])  # of a step that a full disk cut off
    told: list[tuple[str, int]] = []
    models, options = [model, int4], {"scheme": Scheme.WEIGHT_ONLY}
    with pytest.raises(InputError, match=r"state: holds another evaluation: its models, text"):
        evaluate_models(models, TEXT, resume=folder, **options)
    resumed = evaluate_models(
        models, LONGER, resume=folder, progress=lambda m, d, t: told.append((m.name, d)), **options
    )
    assert [done for name, done in told if name == "model"] == [told[0][1]]  # it was done
    assert told[1][0] == "int4" and told[1][1] > 0
    whole = evaluate_models(models, LONGER, **options)
    assert [replace(one, seconds=0.0) for one in resumed] == [
        replace(one, seconds=0.0) for one in whole
    ]
    assert not folder.exists()


@pytest.mark.parametrize("lines", ["{", '{"key": "k"}\n[]', '{"key": "k"}\n{"row": "0"}'])
def test_a_damaged_log_is_named(lines: str, tmp_path: Path) -> None:
    (tmp_path / "progress.jsonl").write_text(f"{lines}\n")
    with (
        pytest.raises(InputError, match=r"--resume .*progress.jsonl is damaged .* delete this one"),
        evaluation_log(tmp_path, "k"),
    ):
        pass


def test_two_evaluations_do_not_share_a_folder(model, tmp_path) -> None:
    started = []

    def meanwhile(*_):
        started.append(True)
        other = r"--resume .*state: another evaluation is being written"
        with pytest.raises(InputError, match=other):
            evaluate_models([model], TEXT, resume=tmp_path / "state")

    evaluate_models([model], TEXT, resume=tmp_path / "state", progress=meanwhile)
    assert started and not (tmp_path / "state").exists()


def test_a_folder_with_other_files_is_left_alone(model, tmp_path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(InputError, match="holds other files than those of an evaluation"):
        evaluate_models([model], TEXT, resume=tmp_path)
    with pytest.raises(InputError, match=r"--resume .*mine: cannot be written.*; name a folder"):
        evaluate_models([model], TEXT, resume=tmp_path / "mine")


def test_what_cannot_be_evaluated_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--stride 64: expected 1 to 63; a chunk has 64 tokens"):
        evaluate_models([model], TEXT, stride=64)
    with pytest.raises(InputError, match="--stride 32: the 64 tokens that are read are one chunk"):
        evaluate_models([model], TEXT, tokens=64, stride=32)
    for option, said in ({"device": "gpu"}, "--device gpu"), (
        {"emulate": "dq8ca-m-gt-k"}, "--emulate dq8ca-m-gt-k",
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"{said} is for programs, and none is given; leave"):
            evaluate_models([model], TEXT, **option)
    with pytest.raises(InputError, match="--scheme is for checkpoints, and none is given"):
        evaluate_models([model], TEXT, scheme=Scheme.WEIGHT_ONLY)
    with pytest.raises(InputError, match="--as-on pixel-8 is for programs, and checkpoints in 8da"):
        evaluate_models([model], TEXT, as_on="pixel-8")
    without = saved(random_model("Llama"), tmp_path / "model")
    with pytest.raises(
        InputError, match=r"has no tokenizer, and evaluate needs the first.*--tokenizer"
    ):
        evaluate_models([without], TEXT)
