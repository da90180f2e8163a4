"""Gemma 3 270M: as llama.cpp computes it, then int4 on both backends, beyond its window too.

Where QUATRAIN_GEMMA names its GGUF file (`make gemma`): minutes, 7 GB of memory.
"""

import math
from itertools import takewhile
from operator import eq
from pathlib import Path

import gguf
import pytest
import torch
from tests.support.formats.gguf_files import GGUF_NAMES
from tests.support.models.gemma import LlamaCpp, gemma_model, in_float32
from tests.support.models.real_models import PROGRAMS, RealModel
from tests.support.models.tiny_models import renamed

from quatrain.backbone.build import build_backbone
from quatrain.checkpoint.open import open_checkpoint, open_float_model
from quatrain.quantize.cost import HELD_OUT_TEXT
from quatrain.quantize.methods.paired_layer import dequantized
from quatrain.runtime.generation.generate import generate
from quatrain.runtime.wgpu.adapters import list_adapters
from quatrain.tokenizer import Tokenizer, find_tokenizer
from quatrain.verify.checks.layerwise import relative_error
from quatrain.verify.checks.prompts import PROMPTS
from quatrain.verify.verify import verify_program

pytestmark = pytest.mark.real
TEXTS = (
    "The capital of France is",
    "def fibonacci(n):",
    "Once upon a time, in a small village by the sea,",
)
NEW_TOKENS = 32
# ggml looks GELU up in a table of float16, which moves a log probability by 0.002.
NEAR = 0.01
LONG = 1500  # tokens: of its layers 15 see 512, and a Vulkan program takes 512 in a call
GEMMA_NAMES = GGUF_NAMES | {
    "post_attention_norm": "post_attention_norm",
    "post_ffn_norm": "post_ffw_norm",
}
# What rounding to nearest costs a tensor of normal numbers is 0.1 of its size.
MOST_ERROR = 0.15


@pytest.fixture(scope="module")
def gemma(shared: Path) -> RealModel:
    return gemma_model(shared)


def test_the_text_of_llama_cpp(gemma: RealModel) -> None:
    llama_cpp = LlamaCpp(in_float32(gemma))
    model = open_float_model(gemma.fetch())
    words, context = model.tokenizer(), 128
    backbone = build_backbone(model.config, model.tensors, max_seq_len=context)
    assert words is not None
    for text in TEXTS:
        theirs = llama_cpp.greedy(text, NEW_TOKENS)
        ours = generate(backbone, words.encode(text), context=context, max_new_tokens=NEW_TOKENS)
        same = sum(takewhile(bool, map(eq, theirs.tokens, ours.tokens)))
        assert ours.logprobs[:same] == pytest.approx(theirs.logprobs[:same], abs=NEAR), text
        assert same == NEW_TOKENS or theirs.leads[same] < NEAR, (text, same, theirs.leads[same])


def test_what_each_tensor_lost(gemma: RealModel) -> None:
    """Against the gguf package's reading of the file; `pytest -rP` shows each of them."""
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(gemma.fetch()).tensors}
    opened = open_checkpoint(gemma.checkpoint)
    names = {name for name in opened.tensors if name.endswith(".weight")}
    named = {renamed(name, GEMMA_NAMES, "blk"): name for name in names - {"output.weight"}}
    assert named.keys() == tensors.keys()
    assert torch.equal(opened.tensors["output.weight"], opened.tensors["tok_embeddings.weight"])
    for theirs, ours in sorted(named.items()):
        stored = tensors[theirs]
        exact = torch.tensor(gguf.dequantize(stored.data, stored.tensor_type))
        found, scales = opened.tensors[ours], ours.replace(".weight", ".scales")
        if exact.dim() == 1:
            assert torch.equal(found, exact), ours
            continue
        lost = relative_error(dequantized(found, opened.tensors[scales].float()), exact)
        print(f"{ours:40} {stored.tensor_type.name:>5} {lost:.4f}")
        assert lost < MOST_ERROR, ours


def test_its_figures(gemma: RealModel) -> None:
    """What llama.cpp fixes for the architecture or reads from the file."""
    config = open_checkpoint(gemma.checkpoint).config
    assert config.embedding_scale_factor == math.sqrt(640)
    assert (config.sliding_window, config.rope_theta, config.local_rope_theta) == (512, 1e6, 1e4)
    kinds = [config.layer(index).attention_window for index in range(18)]
    assert [index for index, window in enumerate(kinds) if not window] == [5, 11, 17]


@pytest.mark.parametrize("name", PROGRAMS)
def test_int4_is_what_the_checkpoint_means(gemma: RealModel, name: str) -> None:
    """A prompt that is longer than the window, and of a Vulkan program than a call, first."""
    words = Tokenizer.load(find_tokenizer(gemma.checkpoint / "model.safetensors"))
    ids = words.encode(HELD_OUT_TEXT.read_text(encoding="utf-8"), add_special_tokens=False)
    prompts = (words.decode(ids[:LONG]), PROMPTS[0])
    device = "executorch" if name.endswith("xnnpack") else "reference"
    report = verify_program(gemma.program(name), gemma.checkpoint, (device,), prompts, 16)
    print(report.floor, *(check.parity for check in report.devices))
    assert report.passed, report


@pytest.mark.skipif(not list_adapters(), reason="no Vulkan adapter")
@pytest.mark.parametrize("name", ["8da4w", "weight-only"])
def test_int4_on_the_gpu(gemma: RealModel, name: str) -> None:
    report = verify_program(gemma.program(name), gemma.checkpoint, ("gpu",), PROMPTS[:1], 4)
    assert report.passed, report
