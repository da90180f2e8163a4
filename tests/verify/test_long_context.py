"""A program of a longer context than its params.json asks for, as far as its model was trained."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.command_line import invoked
from tests.support.comparisons.rounding import assert_equal_but_for_rounding
from tests.support.models.tiny_programs import TEXT, Tiny
from tests.support.thorough import thorough

from quatrain.arithmetic import ARITHMETIC_OF
from quatrain.backbone.build import build_backbone
from quatrain.checkpoint.open import open_checkpoint
from quatrain.errors import InputError
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.export.exporter import context_length
from quatrain.linear.int4 import compute_as
from quatrain.runtime.generation.generate import generate
from quatrain.runtime.load import load_runner
from quatrain.verify.evaluate.evaluate import evaluate_models
from quatrain.verify.explain.computed_program import ComputedProgram
from quatrain.verify.verify import verify_program

CONTEXT = 2500
LONG_TEXT = " ".join([TEXT] * 300)  # of 2,100 tokens: more than a Vulkan program takes in a call


@pytest.fixture(scope="module")
def long(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint, trained for more than the 64 tokens that it asks for."""
    folder = tmp_path_factory.mktemp("long") / "checkpoint"
    shutil.copytree(tiny.checkpoint, folder)
    params = json.loads((folder / "params.json").read_text())
    (folder / "params.json").write_text(json.dumps(params | {"max_context_len": 4096}))
    # XNNPACK would round other scales.
    tensors = load_file(folder / "model.safetensors")
    scales = {name: t.bfloat16() for name, t in tensors.items() if name.endswith(".scales")}
    save_file(tensors | scales, folder / "model.safetensors")
    return folder


def _text(generator: torch.Generator) -> torch.Tensor:
    return torch.randint(96, (1, CONTEXT), generator=generator)


@pytest.mark.parametrize("backend", ["vulkan", *thorough(["xnnpack"])])
def test_a_longer_context_than_the_usual_one(long: Path, backend: str, tmp_path: Path) -> None:
    options = ExportOptions(backend=backend, max_seq_len=CONTEXT)  # type: ignore[arg-type]
    program = tmp_path / "m.pte"
    assert export_checkpoint(long, program, options).max_seq_len == CONTEXT
    device = "reference" if backend == "vulkan" else "executorch"
    runner = load_runner(program, device)
    assert runner.metadata["get_max_context_len"] == CONTEXT
    one_call = 2048 if backend == "vulkan" else CONTEXT  # the most that one call takes
    assert runner.metadata["get_max_seq_len"] == one_call
    opened = open_checkpoint(long)
    eager = build_backbone(opened.config, opened.tensors, max_seq_len=CONTEXT)
    compute_as(eager, ARITHMETIC_OF[backend])
    calls = [(position, position + 1) for position in (0, 64, 2047, CONTEXT - 1)]
    assert_equal_but_for_rounding(runner, eager, _text, calls)
    assert verify_program(program, long, (device,), (TEXT, LONG_TEXT), new_tokens=4).passed
    tokens = _text(torch.Generator().manual_seed(0))[0, :2100]
    expected = generate(runner, tokens.tolist(), context=CONTEXT, max_new_tokens=1)
    row = ComputedProgram(program).read_prompt(tokens.tolist(), None)
    assert float(row[expected.tokens[0]]) == pytest.approx(expected.logits[0], rel=1e-5)
    # Read from an empty context each, of what both have room for.
    checkpoint, exported = evaluate_models([long, program], TEXT, device=device)
    assert exported.perplexity == pytest.approx(checkpoint.perplexity, rel=1e-2)
    arguments = ["run", str(program), "--prompt", TEXT, "--max-new-tokens", "80"]
    result = invoked([*arguments, "--device", device, "--json"])
    assert result.exit_code == 0 and len(json.loads(result.stdout)["tokens"]) > 64, result.output


def test_no_longer_than_it_was_trained_for(long: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is 4097, but .* context of 4096"):
        export_checkpoint(long, tmp_path / "m.pte", ExportOptions(max_seq_len=4097))
    assert context_length(open_checkpoint(long), None) == 64
