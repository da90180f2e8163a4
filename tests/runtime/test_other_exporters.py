"""Programs whose inputs and states are not ours, as other tools export them."""

import pytest
import torch
from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
from executorch.examples.models.lfm2.short_conv import ShortConv
from executorch.exir import to_edge
from torch import nn

from quatrain.errors import InputError
from quatrain.program import open_program
from quatrain.runtime.executorch import ExecutorchRunner
from quatrain.runtime.generation.generate import generate
from quatrain.runtime.generation.kept_context import KeptContext
from quatrain.runtime.load import load_runner
from quatrain.targets import examine
from quatrain.verify.evaluate.windows import window_logits
from quatrain.verify.explain.computed_program import ComputedProgram

VOCAB, CONTEXT, PROMPT = 40, 32, [3, 1, 4, 1, 5]


class Positions(nn.Module):
    """Logits of a token and its position; `every`: of all tokens [1, T, V], with a position for
    each, as optimum-executorch has it."""

    def __init__(self, every: bool) -> None:
        super().__init__()
        self.every = every
        self.tokens, self.places = nn.Embedding(VOCAB, 8), nn.Embedding(CONTEXT, 8)
        self.output = nn.Linear(8, VOCAB)

    def forward(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        rows = self.output(self.tokens(tokens) + self.places(positions))
        return rows if self.every else rows[:, -1]


def exported(model, path, tokens, positions, shapes=None, partitioner=None):
    program = torch.export.export(model, (tokens, positions), dynamic_shapes=shapes)
    metadata = {"get_max_seq_len": CONTEXT, "get_vocab_size": VOCAB}
    edge = to_edge(program, constant_methods=metadata)
    if partitioner:
        edge = edge.to_backend(partitioner)
    path.write_bytes(edge.to_executorch().buffer)
    return path


@pytest.fixture(scope="module", params=["a position for each token", "int32, one token a call"])
def program(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("other") / "m.pte"
    torch.manual_seed(0)
    if request.param.startswith("int32"):
        model, length = Positions(every=False), torch.tensor([[1]], dtype=torch.int32)
        return model, exported(model, path, length, torch.tensor([0]))
    model, varies = Positions(every=True), torch.export.Dim("T", max=CONTEXT - 1)
    shapes = {"tokens": {1: varies}, "positions": {0: varies}}
    return model, exported(model, path, torch.ones(1, 3).long(), torch.arange(3), shapes)


@torch.inference_mode()
def test_they_compute_what_the_model_does(program):
    model, path = program
    every = torch.tensor([PROMPT]), torch.arange(len(PROMPT))
    expected = model.output(model.tokens(every[0]) + model.places(every[1]))[0]
    found = torch.cat(list(window_logits(ExecutorchRunner(path), PROMPT, 64)))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(ComputedProgram(path).read_prompt(PROMPT, None), expected[-1])
    runner = ExecutorchRunner(path)
    assert runner.metadata["get_max_context_len"] == CONTEXT  # as a phone's runner has it
    text = generate(runner, PROMPT, context=CONTEXT, max_new_tokens=4)
    tokens = PROMPT + text.tokens
    for at in range(len(PROMPT), len(tokens)):
        last = torch.tensor([[tokens[at - 1]]]), torch.tensor([at - 1])
        assert model(*last).reshape(-1).argmax() == tokens[at]


class Stateful(nn.Module):
    """Logits of a token and those before it, which ExecuTorch's own convolution of LFM2 keeps;
    `clears`: it begins anew at position 0."""

    def __init__(self, clears: bool = False) -> None:
        super().__init__()
        self.tokens, self.output = nn.Embedding(VOCAB, 8), nn.Linear(8, VOCAB)
        self.conv, self.clears = ShortConv(8), clears

    def forward(self, tokens: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        if self.clears:
            self.conv.conv_state.mul_((position[0] != 0).float())
        return self.output(self.conv(self.tokens(tokens)))[:, -1]

    def reset(self) -> None:
        self.conv.reset_cache()


class IndexedCache(Stateful):
    """The same of a cache that is written by index, over which a mask goes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", torch.zeros(1, CONTEXT, 8))

    def forward(self, tokens: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        places = position + torch.arange(tokens.shape[1])
        self.cache[:, places] = self.tokens(tokens)
        seen = torch.arange(CONTEXT) <= places[-1]
        return self.output((self.cache * seen[:, None]).sum(1))

    def reset(self) -> None:
        self.cache.zero_()


class CountedCache(IndexedCache):
    """The same, by a count of tokens, as transformers' `StaticLayer` has it when it is exported."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.tensor(0))

    def forward(self, tokens: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        self.count.copy_(position[0])
        logits = super().forward(tokens, self.count + 0)
        self.count.add_(tokens.shape[1])
        return logits


STATEFUL = {
    # ExecuTorch's runner begins a text by position 0 alone.
    "a state that stays": (Stateful(), True, False),
    "a state that is cleared": (Stateful(clears=True), False, False),
    "a cache by index": (IndexedCache(), False, True),
    "a count of tokens that is set": (CountedCache(), False, True),
}


@pytest.mark.parametrize("case", STATEFUL)
@torch.inference_mode(False)
def test_a_text_after_another_is_computed_anew(case, tmp_path):
    model, goes_on, rewinds = STATEFUL[case]
    model.requires_grad_(False)
    varies = {"tokens": {1: torch.export.Dim("T", max=CONTEXT - 1)}, "position": None}
    path = exported(model, tmp_path / "m.pte", torch.ones(1, 3).long(), torch.tensor([0]), varies)
    runner, text = ExecutorchRunner(path), torch.tensor([PROMPT])
    assert (runner.goes_on(PROMPT[0]), runner.rewinds) == (goes_on, rewinds)
    for _ in range(2):  # without a reset
        model.reset()
        for start, end in ((0, 3), (3, 4), (4, 5)):
            call = text[:, start:end], torch.tensor([start])
            torch.testing.assert_close(runner.forward(*call), model(*call))
    kept = KeptContext(runner)
    for prompt in (text, torch.cat([text[:, :4], text[:, :1]], 1)):
        model.reset()
        torch.testing.assert_close(
            kept.forward(prompt, torch.tensor([0])), model(prompt, torch.tensor([0]))
        )


@torch.inference_mode(False)
def test_a_state_that_no_call_of_a_vulkan_delegate_takes_is_told(tmp_path):
    model = Stateful().requires_grad_(False)
    call = torch.ones(1, 3).long(), torch.tensor([0])
    path = exported(model, tmp_path / "m.pte", *call, None, VulkanPartitioner())
    with pytest.raises(InputError, match=r"whose calls overwrite a state.*with quatrain export if"):
        load_runner(path, "reference")
    told = [finding for finding in examine(open_program(path)) if finding.applies]
    assert "delegate-call" in [finding.defect for finding in told]
    assert any("whose calls overwrite a state" in str(finding) for finding in told)


class Pair(nn.Module):
    def forward(self, tokens: torch.Tensor, position: torch.Tensor):
        return tokens + 1, position + 1


class Numbered(nn.Module):
    def forward(self, number: int, tokens: torch.Tensor):
        return tokens + tokens


TOKENS, POSITION = torch.ones(1, 3).long(), torch.zeros(1).long()
NO_LOGITS = {
    "no position": (
        {"forward": (nn.Embedding(VOCAB, 8), (TOKENS,))},
        r"takes 1 inputs, of shapes \[\[1, 3\]\], expected two: tokens",
    ),
    "the position first": (
        {"forward": (Positions(False), (POSITION, TOKENS))},
        r"takes 2 inputs, of shapes \[\[1\], \[1, 3\]\], expected two: tokens",
    ),
    "a number first": (
        {"forward": (Numbered(), (2, TOKENS))},
        r"takes 2 inputs, of shapes \['Int', \[1, 3\]\], expected two: tokens",
    ),
    "two results": ({"forward": (Pair(), (TOKENS, POSITION))}, "gives 2 results, .*the logits;"),
    "other methods": (
        {"prefill": (Positions(False), (TOKENS, POSITION)), "decode": (Pair(), (TOKENS, POSITION))},
        r"no method forward \(its methods are decode, prefill\)",
    ),
}


@pytest.mark.parametrize(("methods", "message"), NO_LOGITS.values(), ids=NO_LOGITS)
def test_a_program_without_a_text_model_is_refused(tmp_path, methods, message):
    path = tmp_path / "m.pte"
    programs = {name: torch.export.export(*said) for name, said in methods.items()}
    path.write_bytes(to_edge(programs).to_executorch().buffer)
    with pytest.raises(InputError, match=message):
        ExecutorchRunner(path)
