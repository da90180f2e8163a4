"""SmolLM2: the exported programs say what the eager quantized backbone says."""

from pathlib import Path

import pytest
import torch
from tests.support.comparisons.logits import step_logits
from tests.support.thorough import thorough

from quatrain.arithmetic import VULKAN_ARITHMETIC, VULKAN_WITHOUT_DOT_PRODUCTS
from quatrain.backbone.build import build_backbone
from quatrain.backbone.model import Backbone
from quatrain.checkpoint.open import open_checkpoint
from quatrain.linear.int4 import compute_as
from quatrain.program import open_program
from quatrain.runtime.generation.generate import Generation, generate
from quatrain.runtime.load import load_runner
from quatrain.runtime.runner import Runner
from quatrain.tokenizer import Tokenizer, find_tokenizer
from quatrain.verify.eager import load_eager

pytestmark = pytest.mark.real

PROMPTS = (
    "Why is the sky blue?",
    "Write a short poem about the sea.",
    "List three uses of a paper clip.",
    "Translate 'good morning' into French.",
    "def fibonacci(n):",
)
NEW_TOKENS = 24
ROUNDING = 1e-4  # of a product in another order, 30 layers deep, relative to the largest logit


def words_of(program: Path) -> Tokenizer:
    return Tokenizer.load(find_tokenizer(program))


def chat_tokens(words: Tokenizer, prompt: str) -> list[int]:
    text = words.apply_chat([{"role": "user", "content": prompt}])
    return words.encode(text, add_special_tokens=False)


def greedy(runner: Runner, tokens: list[int], eos_ids: list[int]) -> Generation:
    return generate(runner, tokens, context=512, max_new_tokens=NEW_TOKENS, eos_ids=eos_ids)


class Recorded:
    """A runner that keeps the logits [vocab_size] of each of its calls."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.rows: list[torch.Tensor] = []

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor) -> torch.Tensor:
        self.rows.append(self.runner.forward(tokens, input_pos).reshape(-1))
        return self.rows[-1]

    def reset(self) -> None:
        self.rows = []
        self.runner.reset()


@torch.inference_mode()
def answer_logits(model: Backbone, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """The logits [1 + len(answer), vocab_size] after the prompt and each token of the answer.

    The answer is read at once, in the arithmetic of steps: their activations are not quantized.
    """
    model.reset()
    rows = [compute_as(model, VULKAN_ARITHMETIC)(torch.tensor([prompt]), torch.tensor([0]))]
    compute_as(model, VULKAN_WITHOUT_DOT_PRODUCTS)
    if answer:
        rows.append(model.logits(model.hidden(torch.tensor([answer]), len(prompt)))[0])
    return torch.cat(rows)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(
    "prompts",
    [PROMPTS[:1], *thorough([PROMPTS[1:]])],
    ids=lambda prompts: f"{len(prompts)} prompts",
)
@pytest.mark.parametrize("scheme", ["8da4w", "weight-only"])
def test_the_same_tokens_and_logits_as_eager(scheme, prompts, smollm2):
    """Greedily, token by token; what eager would have chosen follows from its logits."""
    path = smollm2.program(scheme)
    program = Recorded(load_runner(path, "reference"))
    model, words = load_eager(smollm2.checkpoint, scheme), words_of(path)
    tokens = chat_tokens(words, prompts[0])[:16]
    assert relative_error(step_logits(program, tokens), step_logits(model, tokens)) < ROUNDING
    for prompt in prompts:
        tokens = chat_tokens(words, prompt)
        found = greedy(program, tokens, words.eos_ids)
        logits = torch.stack(program.rows)
        expected = answer_logits(model, tokens, found.tokens[: len(logits) - 1])
        assert relative_error(logits, expected) < ROUNDING, prompt
        assert len(found.tokens) > 5 or found.stopped == "end of sequence"


def test_all_211_linears_are_the_schemes_kernel(smollm2):
    for scheme, kernel in (
        ("8da4w", "et_vk.linear_dq8ca_q4gsw"),
        ("weight-only", "et_vk.linear_q4gsw"),
    ):
        program = open_program(smollm2.program(scheme))
        assert [s.kind for s in program.methods["forward"].instructions] == ["delegate"]
        kinds = [operator.kind for operator in program.vulkan.operators]
        assert kinds.count(kernel) == 211
        assert not any("linear" in kind and kind != kernel for kind in kinds)


def test_one_state_serves_both_schemes_and_stays_as_it_was(smollm2):
    opened = open_checkpoint(smollm2.checkpoint)
    state = dict(opened.tensors)
    sums = {name: tensor.double().sum() for name, tensor in state.items()}
    tokens = torch.tensor([[1, 2, 3, 4]])
    results = [
        build_backbone(opened.config, state, scheme)(tokens, torch.tensor([0]))
        for scheme in ("8da4w", "weight-only")
    ]
    assert not torch.equal(*results)
    for name, tensor in opened.tensors.items():
        assert torch.equal(state[name], tensor)
        assert state[name].double().sum() == sums[name]


def test_executorchs_own_runner_generates_the_same_text(smollm2):
    from executorch.extension.llm.runner import GenerationConfig, TextLLMRunner

    path = smollm2.program("8da4w-xnnpack")
    words, tokenizer = words_of(path), find_tokenizer(path)
    prompt = words.apply_chat([{"role": "user", "content": PROMPTS[0]}])
    runner = load_runner(path)
    ours = greedy(runner, words.encode(prompt, add_special_tokens=False), words.eos_ids)

    theirs = TextLLMRunner(str(path), str(tokenizer))
    pieces: list[str] = []
    config = GenerationConfig(echo=False, max_new_tokens=NEW_TOKENS, temperature=0.0)
    theirs.generate(prompt, config, pieces.append)
    text = "".join(pieces)
    for token in ("<|im_end|>", "<|endoftext|>"):
        text = text.removesuffix(token)
    assert text == words.decode(ours.tokens)
