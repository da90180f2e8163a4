"""Attention over a whole context, which a phone sums in float16 where it lies in buffers."""

from dataclasses import replace

import pytest
from tests.support.tiny_programs import TEXT, Tiny

from quatrain.backbone.build import build_backbone
from quatrain.checkpoint.open import open_checkpoint
from quatrain.program import VulkanGraph
from quatrain.tokenizer import Tokenizer
from quatrain.verify import verify
from quatrain.verify.checks.half_attention import half_attention_problems


def _attending(tiny: Tiny, context: int, dtype: str, storage: str) -> VulkanGraph:
    """The tiny program's graph as if it attended so to so many positions."""
    graph = tiny.open("8da4w").vulkan
    for operator in graph.operators:
        if operator.kind == "sdpa_with_kv_cache":
            cache = operator.named_args["k_cache"]
            _, _, *rest = graph.tensor(cache).shape
            graph.values[cache] = replace(graph.tensor(cache), shape=(1, context, *rest))
            out = replace(graph.tensor(operator.out), dtype=dtype, storage=storage)
            graph.values[operator.out] = out
    return graph


@pytest.mark.parametrize(
    ("context", "dtype", "storage", "problems"),
    [
        (16384, "float16", "buffer", 1), (16384, "float16", "texture3d", 0),
        (16384, "float32", "buffer", 0), (1024, "float16", "buffer", 0),
    ],
)  # fmt: skip
def test_a_long_context_is_summed_as_on_the_phone(
    tiny: Tiny, context: int, dtype: str, storage: str, problems: int
) -> None:
    opened = open_checkpoint(tiny.checkpoint)
    backbone = build_backbone(opened.config, opened.tensors, max_seq_len=512)
    tokenizer = Tokenizer.load(tiny.checkpoint / "tokenizer.json")
    graph = _attending(tiny, context, dtype, storage)
    found = half_attention_problems(graph, backbone, tokenizer)
    assert len(found) == problems
    assert all("--max-seq-len" in one and f"{context} tokens" in one for one in found)


def test_a_program_that_a_phone_sums_so_does_not_pass(tiny: Tiny, monkeypatch) -> None:
    monkeypatch.setattr(verify, "half_attention_problems", lambda *_: ["far off"])
    program = tiny.programs["8da4w"]
    report = verify.verify_program(program, tiny.checkpoint, ("reference",), (TEXT,), 2)
    assert not report.passed and report.devices[0].problems == ["far off"]
