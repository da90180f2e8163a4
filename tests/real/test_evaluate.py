"""SmolLM2's perplexity: alike in both schemes, and what the known defect makes of it."""

from pathlib import Path

import pytest

from quatrain.verify.evaluate import DEFAULT_TEXT, evaluate_models

pytestmark = pytest.mark.real
FAULT = "dq8ca-zp-binding-float"
TOKENS = 128


def test_the_defect_ruins_8da4w_and_leaves_weight_only_as_it_is(
    smollm2_programs: dict[str, Path], smollm2_checkpoint: Path
) -> None:
    text = DEFAULT_TEXT.read_text(encoding="utf-8")
    programs = [smollm2_programs["8da4w"], smollm2_programs["weight-only"]]
    eager, dynamic, weight_only = evaluate_models(
        [smollm2_checkpoint, *programs], text, TOKENS, "reference"
    )
    assert dynamic.perplexity == pytest.approx(eager.perplexity, rel=0.02)
    assert weight_only.perplexity == pytest.approx(eager.perplexity, rel=0.15)
    assert 10 < eager.perplexity < 60  # of prose that no model was trained on
    broken, untouched = evaluate_models(programs, text, TOKENS, "reference", FAULT)
    assert not broken.perplexity < 1000 * dynamic.perplexity
    assert untouched.loss == weight_only.loss


def test_xnnpack_is_as_good_as_the_checkpoint(
    smollm2_programs: dict[str, Path], smollm2_checkpoint: Path
) -> None:
    text = DEFAULT_TEXT.read_text(encoding="utf-8")
    models = [smollm2_checkpoint, smollm2_programs["8da4w-xnnpack"]]
    eager, program = evaluate_models(models, text, TOKENS)
    assert program.runtime == "executorch"
    assert program.perplexity == pytest.approx(eager.perplexity, rel=0.1)
    assert program.against_first is not None
    assert program.against_first.kl < 0.1 and program.against_first.top1_agreement > 0.8
