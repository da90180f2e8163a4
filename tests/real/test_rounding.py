"""SmolLM2's XNNPACK program differs from the eager backbone by rounding alone.

XNNPACK adds in another order. Under 8da4w a bit more or less in an activation that lies between
two int8 steps makes it the other step, which moves the logits by a hundredth; where no step falls
otherwise they differ by a millionth or so. How often one does depends on the processor, so it is
measured on the machine itself: beside the program stands the eager backbone with an embedding that
is off by a few float32 digits, on the same texts, and the program may not do worse beyond chance.
"""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.comparisons.rounding import nudged
from tests.support.comparisons.side_by_side import logits_side_by_side
from tests.support.comparisons.sign_flips import FALSE_ALARMS, chance_of_so_low
from tests.support.models.real_models import PROGRAMS, RealModel

from quatrain.arithmetic import XNNPACK_ARITHMETIC
from quatrain.backbone.model import Backbone
from quatrain.export import export_checkpoint
from quatrain.linear.affine import choose_token_qparams
from quatrain.runtime.load import load_runner
from quatrain.runtime.runner import Runner
from quatrain.tokenizer import Tokenizer, find_tokenizer
from quatrain.verify.eager import load_eager
from quatrain.verify.evaluate.evaluate import DEFAULT_TEXT

pytestmark = pytest.mark.real
# Makes steps fall otherwise twice as often as XNNPACK does on a processor with AVX-512.
NUDGE = 2.0**-18
# A relative error between those of rounding (up to 2e-5) and those of a step (2e-3 and more).
NO_STEP = 2e-4
TEXTS, LENGTH = 128, 4  # short: after more tokens, some step has fallen otherwise in every text
LONG_TEXTS, LONG, PROMPT = 24, 32, 16
# Of 211 linears one that hardly shows: it only moves how much is attended to.
FAULTY = "layers.15.attention.wk"


@pytest.fixture(scope="module")
def eager(smollm2: RealModel) -> Backbone:
    return load_eager(smollm2.checkpoint, arithmetic=XNNPACK_ARITHMETIC)


@pytest.fixture(scope="module")
def tokens(smollm2: RealModel) -> torch.Tensor:
    words = Tokenizer.load(find_tokenizer(smollm2.program("8da4w-xnnpack")))
    return torch.tensor(words.encode(DEFAULT_TEXT.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def texts(tokens: torch.Tensor) -> torch.Tensor:
    return tokens[: TEXTS * LENGTH].view(TEXTS, LENGTH)


@pytest.fixture(scope="module")
def expected(eager: Backbone, texts: torch.Tensor) -> torch.Tensor:
    return logits_side_by_side(eager, texts)


@pytest.fixture(scope="module")
def floor(eager: Backbone, texts: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """What a nudge leaves as it was."""
    return unmoved(nudged_logits(eager, texts), expected)


def nudged_logits(eager: Backbone, texts: torch.Tensor) -> torch.Tensor:
    """The logits of `eager` where each element of the embedding is off by a NUDGE or so."""
    with nudged(eager, NUDGE, torch.Generator().manual_seed(0)):
        return logits_side_by_side(eager, texts)


def stepped(runner: Runner, texts: torch.Tensor, prompt: int = 1) -> torch.Tensor:
    """The logits [N, T - prompt + 1, vocab_size] of a runner that reads each of `texts` [N, T]
    anew: its first `prompt` tokens at once, then token by token."""
    calls = [(0, prompt), *((at, at + 1) for at in range(prompt, texts.shape[1]))]
    rows = [
        runner.forward(text[None, start:end], torch.tensor([start])).reshape(-1)
        for text in texts
        for start, end in calls
    ]
    return torch.stack(rows).unflatten(0, (len(texts), len(calls)))


def relative_errors(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    return (found - expected).norm(dim=-1) / expected.norm(dim=-1)


def unmoved(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """After how many tokens of each text [N] no step has fallen otherwise.

    The first one is left out: it attends to itself, whatever its query and key are.
    """
    return (relative_errors(found, expected)[:, 1:] < NO_STEP).sum(1)


def is_worse(found: torch.Tensor, floor: torch.Tensor) -> bool:
    return chance_of_so_low((found - floor).tolist()) < FALSE_ALARMS


def test_steps_fall_otherwise_no_more_often_than_by_a_nudge(smollm2, texts, expected, floor):
    program = load_runner(smollm2.program("8da4w-xnnpack"))
    assert not is_worse(unmoved(stepped(program, texts), expected), floor)


@pytest.mark.thorough
def test_one_linears_scales_off_by_a_bfloat16_step_show(
    smollm2, texts, expected, floor, tmp_path: Path
):
    checkpoint = Path(shutil.copytree(smollm2.checkpoint, tmp_path / "checkpoint"))
    tensors = load_file(checkpoint / "model.safetensors")
    tensors[f"{FAULTY}.scales"] *= 1 + 2**-7
    save_file(tensors, checkpoint / "model.safetensors")
    export_checkpoint(checkpoint, tmp_path / "model.pte", PROGRAMS["8da4w-xnnpack"])
    program = load_runner(tmp_path / "model.pte")
    assert is_worse(unmoved(stepped(program, texts), expected), floor)


def test_one_linears_zero_points_off_by_one_show(eager, texts, expected, floor):
    linear = eager.get_submodule(FAULTY)

    def one_step_up(_module, given, result: torch.Tensor) -> torch.Tensor:
        step, _ = choose_token_qparams(given[0], torch.finfo(torch.float32).eps)
        return result + step[..., None] * linear.dequantized_weight().sum(1)

    handle = linear.register_forward_hook(one_step_up)
    try:
        found = logits_side_by_side(eager, texts)
    finally:
        handle.remove()
    assert is_worse(unmoved(found, expected), floor)


@pytest.mark.thorough
def test_after_long_texts_as_much_agrees_as_with_a_nudge(smollm2, tokens, eager):
    """After a whole prompt and at each step that follows, where steps have long fallen otherwise:
    as many tokens are still the most likely ones."""
    texts = tokens[: LONG_TEXTS * LONG].view(LONG_TEXTS, LONG)
    expected, floor = (
        logits[:, PROMPT - 1 :]
        for logits in (logits_side_by_side(eager, texts), nudged_logits(eager, texts))
    )
    found = stepped(load_runner(smollm2.program("8da4w-xnnpack")), texts, PROMPT)
    agree, agree_nudged = (
        (logits.argmax(-1) == expected.argmax(-1)).sum(1) for logits in (found, floor)
    )
    assert not is_worse(agree, agree_nudged)
    error, error_nudged = (relative_errors(logits, expected) for logits in (found, floor))
    assert error.median() < 2 * error_nudged.median()
