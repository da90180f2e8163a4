"""`--as-on`: prefill as a GPU without integer dot products computes 8da4w, and as an older release
sums weight-only linears in float32; end to end."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.command_line import invoked
from tests.support.devices import DEVICES_OF
from tests.support.models.tiny_checkpoint import write_checkpoint
from tests.support.models.tiny_programs import TEXT, Tiny, write_word_tokenizer

from quatrain.arithmetic import VULKAN_ARITHMETIC, VULKAN_WITHOUT_DOT_PRODUCTS
from quatrain.errors import InputError
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.int4 import Scheme
from quatrain.program import open_program
from quatrain.runtime.load import load_runner
from quatrain.targets.as_on import arithmetic_as_on
from quatrain.targets.runtimes import known_releases, quantizes_activations
from quatrain.tokenizer import Tokenizer
from quatrain.verify.eager import load_eager
from quatrain.verify.evaluate.evaluate import evaluate_models
from quatrain.verify.verify import verify_program

DEVICES = DEVICES_OF["vulkan"]
WITHOUT = "mali-g76"


def _tokens(tiny: Tiny) -> torch.Tensor:
    return torch.tensor([Tokenizer.load(tiny.checkpoint / "tokenizer.json").encode(TEXT)])


@torch.inference_mode()
def _eager_logits(tiny: Tiny, as_on: str | None) -> torch.Tensor:
    """Of the last position of a prefill."""
    backbone = load_eager(tiny.checkpoint, arithmetic=arithmetic_as_on(as_on))
    return backbone(_tokens(tiny), torch.tensor([0])).reshape(-1)


@pytest.mark.parametrize("device", DEVICES)
def test_prefill_differs_as_eager_with_that_arithmetic_does(tiny: Tiny, device: str) -> None:
    found = {}
    for as_on in (None, WITHOUT):
        program = open_program(tiny.programs["8da4w"])
        runner = load_runner(program, device, arithmetic=arithmetic_as_on(as_on))
        prefill = runner.forward(_tokens(tiny), torch.tensor([0])).reshape(-1)
        step = runner.forward(torch.tensor([[5]]), torch.tensor([0])).reshape(-1)
        found[as_on] = prefill, step
        torch.testing.assert_close(prefill, _eager_logits(tiny, as_on), rtol=1e-4, atol=1e-4)
    (usual, usual_step), (without, step) = found[None], found[WITHOUT]
    assert (usual - without).abs().max() > 1e-3 * usual.abs().max()
    assert torch.equal(usual_step, step)


def test_verify_passes_as_on_either_kind_of_gpu(tiny: Tiny) -> None:
    program = tiny.programs["8da4w"]
    for as_on in (None, WITHOUT, "mali-g715@1.3"):
        report = verify_program(
            program, tiny.checkpoint, DEVICES, (TEXT,), new_tokens=2, as_on=as_on
        )
        assert report.passed, report


@pytest.mark.parametrize("device", DEVICES)
def test_evaluate_measures_prefill_as_decode_where_nothing_is_quantized(
    tiny: Tiny, device: str
) -> None:
    models = [tiny.programs["8da4w"], tiny.programs["weight-only"]]
    dynamic, weight_only = evaluate_models(models, TEXT, device=device, as_on=WITHOUT)
    assert dynamic.loss == pytest.approx(weight_only.loss, rel=1e-6)
    (usual,) = evaluate_models(models[:1], TEXT, device=device)
    assert usual.loss != pytest.approx(dynamic.loss, rel=1e-6)


def test_run_chooses_the_token_that_eager_chooses_with_that_arithmetic(tiny: Tiny) -> None:
    for as_on in ((), ("--as-on", WITHOUT)):
        asked = ["run", str(tiny.programs["8da4w"]), "--prompt", TEXT, "--max-new-tokens", "1"]
        done = invoked([*asked, "--device", "reference", "--json", *as_on])
        expected = int(_eager_logits(tiny, as_on[1] if as_on else None).argmax())
        assert json.loads(done.stdout)["tokens"] == [expected]


@pytest.mark.parametrize("as_on", [WITHOUT, "mali-g715", "pixel-8@1.3"])
def test_executorch_refuses_what_it_cannot_compute_as(
    tiny_xnnpack: Path, tiny: Tiny, as_on: str
) -> None:
    with pytest.raises(InputError, match=r"model\.pte: --as-on is for Vulkan programs"):
        load_runner(tiny_xnnpack, arithmetic=arithmetic_as_on(as_on))
    with pytest.raises(InputError, match="--as-on is for Vulkan programs"):
        evaluate_models([tiny_xnnpack], TEXT, as_on=as_on)
    with pytest.raises(InputError, match="--as-on is for Vulkan programs"):
        verify_program(tiny_xnnpack, tiny.checkpoint, ("executorch",), (TEXT,), as_on=as_on)


def test_the_data_say_of_every_release_what_the_arithmetics_say() -> None:
    for release in known_releases():
        for dot_products, arithmetic in (
            (True, VULKAN_ARITHMETIC), (False, VULKAN_WITHOUT_DOT_PRODUCTS),
        ):  # fmt: skip
            assert not quantizes_activations("1", dot_products, release)
            assert not arithmetic.quantizes(1)
            assert quantizes_activations("2..", dot_products, release) == arithmetic.quantizes(2)


def _sums_that_come_back(folder: Path) -> Path:
    """A checkpoint whose values are sums of one sign up to their middle and of the other behind
    it, beyond float16 on the way."""
    write_checkpoint(folder, embedding="int4", n_layers=1, vocab_size=96)
    write_word_tokenizer(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["tok_embeddings.weight"] = tensors["tok_embeddings.weight"].abs()
    tensors["layers.0.attention_norm.weight"].fill_(1000)
    values = tensors["layers.0.attention.wv.weight"]
    values[:, : values.shape[1] // 2], values[:, values.shape[1] // 2 :] = 7, -7
    tensors["layers.0.attention.wv.scales"].fill_(0.5)
    for name in ("wq", "wk", "wo"):
        tensors[f"layers.0.attention.{name}.scales"] /= 1000
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_a_program_whose_sums_leave_float16_fails_where_they_are_summed_in_it(tmp_path):
    checkpoint, program = _sums_that_come_back(tmp_path / "c"), tmp_path / "m.pte"
    options = ExportOptions(scheme=Scheme.WEIGHT_ONLY, activation_dtype="fp16", examine=False)
    export_checkpoint(checkpoint, program, options)
    check = partial(verify_program, program, checkpoint, prompts=(TEXT,), new_tokens=2)
    for device in DEVICES:
        report = check((device,))
        (found,) = report.devices
        assert not report.notes  # which says that sums are off by a little
        assert "linear layers.0.attention.wv, layer 0, is the first" in found.problems[0]
        assert any("exceed float16's range" in problem for problem in found.problems)
    report = check(("reference",), as_on="mali-g715@1.3")
    assert report.passed and not report.notes
