"""SmolLM2 by the default of `quantize`, near to the floating-point model: `make accuracy`.

Minutes: not part of the suite, which does not collect it.
"""

from pathlib import Path

import pytest
from tests.support.downloads import users_cache

from quatrain.quantize.pipeline import quantize_model
from quatrain.runtime.generation.generate import generate
from quatrain.smollm2 import fetch_smollm2
from quatrain.tokenizer import Tokenizer, find_tokenizer
from quatrain.verify.eager import load_eager
from quatrain.verify.evaluate.evaluate import DEFAULT_TEXT, evaluate_models

QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def model() -> Path:
    with users_cache():
        return fetch_smollm2()


@pytest.fixture(scope="module")
def checkpoint(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("accuracy") / "smollm2"
    quantize_model(model, folder)
    return folder


def test_half_of_what_rounding_to_nearest_loses_is_won_back(model, checkpoint, tmp_path) -> None:
    quantize_model(model, tmp_path / "rtn", embedding="int4", method="rtn")
    text = DEFAULT_TEXT.read_text(encoding="utf-8")
    _, rounded, nearest = evaluate_models(
        [model, checkpoint, tmp_path / "rtn"], text, 1024, scheme="weight-only"
    )
    assert rounded.against_first is not None and nearest.against_first is not None
    assert rounded.against_first.kl < 0.5 * nearest.against_first.kl
    assert rounded.perplexity_ratio is not None and rounded.perplexity_ratio < 1.15


@pytest.mark.parametrize("scheme", ["8da4w", "weight-only"])
def test_the_capital_of_france_is_answered(checkpoint, scheme: str) -> None:
    words = Tokenizer.load(find_tokenizer(checkpoint / "model.safetensors"))
    prompt = words.apply_chat([{"role": "user", "content": QUESTION}])
    said = generate(
        load_eager(checkpoint, scheme),
        words.encode(prompt, add_special_tokens=False),
        context=512,
        max_new_tokens=24,
        eos_ids=words.eos_ids,
    )
    assert "Paris" in words.decode(said.tokens)
