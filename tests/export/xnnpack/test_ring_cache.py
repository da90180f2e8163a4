"""Windows kept in rings, and attention sinks: beyond the window, at the ring's edges, in pieces."""

from dataclasses import replace

import pytest
import torch
from tests.support.command_line import invoked
from tests.support.comparisons.planned import assert_as_planned
from tests.support.comparisons.rounding import largest_error
from tests.support.defects.edited_methods import caches, edited_method
from tests.support.models.peers import int4_checkpoint, random_model, saved
from tests.support.models.tiny_checkpoint import PARAMS, write_checkpoint
from tests.support.models.tiny_programs import write_word_tokenizer

from quatrain.arithmetic import XNNPACK_ARITHMETIC
from quatrain.backbone.build import build_backbone
from quatrain.backbone.layers.kv_cache import CachedAttention
from quatrain.backbone.params.params import config_from_params
from quatrain.checkpoint.open import open_checkpoint, open_float_model
from quatrain.errors import InputError
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.export.attention_sink import with_attention_sink
from quatrain.export.xnnpack.ring_cache import RingPlaces, RingSdpa, ring_window
from quatrain.program import open_program
from quatrain.program.inspect.report import inspect_program
from quatrain.program.plan.method_memory import method_memory_problems
from quatrain.runtime.executorch import ExecutorchRunner
from quatrain.runtime.generation.generate import generate
from quatrain.verify.eager import eager_for_program
from quatrain.verify.program_info import program_info

SINKS, WINDOW, CONTEXT = 3, 6, 640
RING = WINDOW + 512
# To the ring's end, over it, many times round; one by one; a text that begins anew in between.
CALLS = ([WINDOW] * 10, [1] * 40, [5, 1, 6, 2, 6, 6, 3, 1, 1, 1, 6, 4], [3, 2, 1, 6, 1])
SINK = ExportOptions("weight-only", "xnnpack", allow_fallback=True, attention_sink=(SINKS, WINDOW))


@pytest.mark.parametrize("sinks", [0, 1, SINKS])
def test_a_ring_holds_what_its_window_sees(sinks):
    """ExecuTorch's operators over a ring equal attention over the whole context, masked."""
    from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401

    fields = {**PARAMS, "max_seq_len": CONTEXT, "sliding_window": WINDOW, "attention_sinks": sinks}
    config = config_from_params(fields, "params.json")
    whole = CachedAttention(config, config.layer(0))
    assert ring_window(whole, None) == WINDOW
    ring = RingSdpa(whole, RingPlaces(WINDOW, sinks, longest_call=6))
    assert ring.k_cache.shape[1] == sinks + 2 * WINDOW
    generator = torch.Generator().manual_seed(0)
    for lengths in CALLS:
        at = 0
        for length in lengths:
            q, k, v = (
                torch.randn(1, length, heads, 16, generator=generator) for heads in (4, 2, 2)
            )
            assert largest_error([ring(q, k, v, at)], [whole(q, k, v, at)]) < 1e-5, (lengths, at)
            at += length


def test_eager_sinks_equal_transformers(tmp_path):
    """Given the mask of StreamingLLM, in one call and in pieces."""
    model = random_model("Llama", num_hidden_layers=2, max_position_embeddings=64)
    opened = open_float_model(saved(model, tmp_path / "model"))
    config = with_attention_sink(opened.config, (SINKS, WINDOW), 64)
    backbone = build_backbone(config, opened.tensors)
    tokens = torch.randint(96, (1, 40), generator=torch.Generator().manual_seed(0))
    query, key = torch.arange(40)[:, None], torch.arange(40)[None]
    seen = (key <= query) & ((query - key < WINDOW) | (key < SINKS))
    mask = torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None]
    with torch.no_grad():
        expected = model(tokens, attention_mask=mask).logits[0]
        at = 0
        for length in (5, 1, 14, 19, 1):
            found = backbone(tokens[:, at : at + length], torch.tensor([at]))
            at += length
            assert largest_error([found[0]], [expected[at - 1]]) < 1e-5


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Of layers enough to be replicated, and linears of few shapes, of which each is lowered."""
    folder = write_checkpoint(
        tmp_path_factory.mktemp("ring") / "c", embedding="int4", output="tied",
        n_kv_heads=4, hidden_dim=64, max_seq_len=CONTEXT,
    )  # fmt: skip
    write_word_tokenizer(folder, PARAMS["vocab_size"])
    return folder


@pytest.fixture(scope="module")
def report(checkpoint, tmp_path_factory):
    return export_checkpoint(checkpoint, tmp_path_factory.mktemp("program") / "m.pte", SINK)


def test_a_program_equals_eager_without_a_reset(checkpoint, report):
    assert_as_planned(report, checkpoint)
    assert not any("lowered separately" in note for note in report.notes)
    assert any(f"keys of the last {RING} tokens and the first {SINKS}" in n for n in report.notes)
    program = open_program(report.output)
    assert program.metadata["quatrain_attention_sink"] == [SINKS, WINDOW]
    assert program.metadata["get_max_seq_len"] == 512
    assert inspect_program(program).kv_cache.bytes == 4 * 2 * (SINKS + RING) * 4 * 16 * 4
    assert program.calls_outside_delegates()["aten.remainder.Scalar_out"] == 2  # for all layers
    # What verify holds it against, but for the scheme, which this one shows as every XNNPACK one.
    info = replace(program_info(program), scheme=SINK.scheme)
    eager, _ = eager_for_program(open_checkpoint(checkpoint), info, None, XNNPACK_ARITHMETIC)
    runner = ExecutorchRunner(report.output)
    tokens = torch.randint(128, (1, CONTEXT), generator=torch.Generator().manual_seed(1))
    for lengths in ([512, 3, 1, 5, 1, 1, 100], [2, 2, 508, 8, 1, 1, 1]):
        at = 0
        for length in lengths:
            call = tokens[:, at : at + length], torch.tensor([at])
            assert largest_error([runner.forward(*call)], [eager.forward(*call)]) < 1e-5
            at += length
    with pytest.raises(InputError, match="begins a text at position 0"):
        runner.forward(tokens[:, :1], torch.tensor([1]))


def test_one_ring_for_two_is_reported(report, tmp_path):
    def for_two(plan):
        first, second = caches(plan)[:2]
        first.allocation_info = second.allocation_info

    assert method_memory_problems(open_program(report.output)) == []
    (found,) = method_memory_problems(open_program(edited_method(report.output, for_two)(tmp_path)))
    assert "is the cache of several operators" in found


def test_a_text_outlives_what_is_kept(report):
    prompt = [i % 100 for i in range(SINKS + RING)]
    given = generate(ExecutorchRunner(report.output), prompt, context=CONTEXT, max_new_tokens=4)
    assert given.stopped == "length" and len(given.tokens) == 4


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--attention-sink", "4"], "expected SINKS,WINDOW, such as 4,512"),
        (["--attention-sink", "0,9"], "expected SINKS,WINDOW with at least 1 and 2"),
        (["--attention-sink", "4,8"], "is for --backend xnnpack"),
        (
            ["--attention-sink", "4,640", "--backend", "xnnpack"],
            "as many tokens as the context has",
        ),
    ],
)
def test_what_cannot_be_is_refused(arguments, found, checkpoint, tmp_path):
    command = ["export", str(checkpoint), "-o", str(tmp_path / "m.pte"), *arguments]
    done = invoked(command)
    assert isinstance(done.exception, InputError) and found in str(done.exception)


def test_a_window_of_its_own_is_refused(tmp_path):
    checkpoint = int4_checkpoint(
        random_model("Mistral", num_hidden_layers=1, sliding_window=8), tmp_path
    )
    with pytest.raises(InputError, match="layers already have a sliding window, of 8 tokens"):
        export_checkpoint(checkpoint, tmp_path / "m.pte", SINK)
