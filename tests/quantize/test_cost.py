"""What `quantize` says that rounding cost: transformers' own loss, and divergence by torch."""

import json
import math
from pathlib import Path

import pytest
import tokenizers
import torch
import torch.nn.functional as F
from tests.support.command_line import invoked
from tests.support.models.peers import random_model, saved

from quatrain.backbone.build import build_backbone
from quatrain.checkpoint.open import open_checkpoint, open_float_model
from quatrain.int4 import Scheme
from quatrain.quantize.calibration import DEFAULT_TEXT
from quatrain.quantize.cost import HELD_OUT_TEXT, Cost, cost_of
from quatrain.quantize.pipeline import quantize_model
from quatrain.stages import Stages


@pytest.fixture(scope="module")
def peer():
    return random_model("Llama", tie_word_embeddings=True)


@pytest.fixture(scope="module")
def model(peer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its words are those of the held-out text, by their length."""
    folder = saved(peer, tmp_path_factory.mktemp("cost") / "model")
    words = sorted(set(HELD_OUT_TEXT.read_text(encoding="utf-8").split()), key=len)[:95]
    vocabulary = {"[other]": 0} | {word: index + 1 for index, word in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[other]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def _rows(model: Path) -> torch.Tensor:
    tokenizer = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    ids = tokenizer.encode(HELD_OUT_TEXT.read_text(encoding="utf-8")).ids
    return torch.tensor(ids)[: len(ids) // 64 * 64].view(-1, 64)  # the context


@torch.inference_mode()
def test_it_is_what_its_definition_says(peer, model: Path, tmp_path: Path) -> None:
    quantize_model(model, tmp_path / "int4", method="rtn")
    opened = open_checkpoint(tmp_path / "int4")
    rows = _rows(model)
    found = cost_of(open_float_model(model), opened, rows, Stages())
    rounded = build_backbone(opened.config, opened.tensors, Scheme.WEIGHT_ONLY)
    want = peer(rows).logits[:, :-1].double().log_softmax(-1).flatten(0, 1)
    got = torch.cat([rounded.logits(rounded.hidden(row[None], 0)) for row in rows])
    got = got[:, :-1].double().log_softmax(-1).flatten(0, 1)
    before, after = (
        F.nll_loss(logs, rows[:, 1:].flatten(), reduction="none") for logs in (want, got)
    )
    assert found.tokens == len(before)
    assert found.perplexity == pytest.approx(math.exp(before.mean()), rel=1e-5)
    assert found.perplexity_ratio == pytest.approx(math.exp((after - before).mean()), rel=1e-5)
    error = float((after - before).std()) / len(before) ** 0.5
    assert found.perplexity_ratio_error == pytest.approx(found.perplexity_ratio * error, rel=1e-3)
    kl = float(F.kl_div(got, want, log_target=True, reduction="batchmean"))
    assert found.kl == pytest.approx(kl, rel=1e-3)
    same = float((want.argmax(-1) == got.argmax(-1)).double().mean())
    assert found.top1_agreement == pytest.approx(same, abs=0.002)


def test_the_default_method_says_it_and_the_other_does_not(model: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(" ".join(DEFAULT_TEXT.read_text(encoding="utf-8").split()[:1200]))
    words = ["quantize", str(model), "-o", str(tmp_path / "int4"), "--calibration", str(text)]
    said = invoked(words, catch_exceptions=False).stdout
    assert "  cost      perplexity " in said and "x floating point, KL " in said
    told = invoked([*words, "--json"], catch_exceptions=False).stdout
    cost = Cost(**json.loads(told)["against_floating_point"])
    checkpoint = open_checkpoint(tmp_path / "int4")
    assert cost == cost_of(open_float_model(model), checkpoint, _rows(model), Stages())
    assert quantize_model(model, tmp_path / "rtn", method="rtn").against_floating_point is None


def test_the_held_out_text_is_not_in_the_calibration_text() -> None:
    held_out, calibration = (
        {line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()}
        for path in (HELD_OUT_TEXT, DEFAULT_TEXT)
    )
    assert not held_out & calibration
