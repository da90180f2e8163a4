"""How many tokens one call of a program takes: a longer prompt is fed in parts."""

import pytest
import torch
from tests.support.comparisons.planned import assert_as_planned
from tests.support.comparisons.rounding import assert_equal_but_for_rounding
from tests.support.defects.findings import findings
from tests.support.models.tiny_checkpoint import PARAMS, write_checkpoint
from tests.support.models.tiny_programs import TEXT, Tiny

from quatrain.arithmetic import ARITHMETIC_OF
from quatrain.backbone.build import build_backbone
from quatrain.checkpoint.open import open_checkpoint
from quatrain.errors import InputError
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.export.exporter import backbone_of_operators
from quatrain.export.metadata import longest_call
from quatrain.export.plan.programs import programs_of
from quatrain.export.plan.weightless import weightless_checkpoint
from quatrain.export.xnnpack.ring_cache import RingSdpa
from quatrain.linear.int4 import compute_as
from quatrain.program import open_program
from quatrain.runtime.load import load_runner
from quatrain.verify.verify import verify_program


@pytest.mark.parametrize("backend", ["vulkan", "xnnpack"])
def test_a_prompt_in_parts_equals_eager(tiny: Tiny, backend, tmp_path):
    options = ExportOptions(backend=backend, prefill_chunk_size=5)
    report = export_checkpoint(tiny.checkpoint, tmp_path / "m.pte", options)
    assert (report.prefill_chunk_size, report.max_seq_len) == (5, 64)
    assert any("up to 5 tokens" in note and "have 64 tokens" in note for note in report.notes)
    assert_as_planned(report, tiny.checkpoint)
    runner = load_runner(report.output)
    assert runner.metadata["get_max_seq_len"] == 5
    assert runner.metadata["get_max_context_len"] == 64
    opened = open_checkpoint(tiny.checkpoint)
    eager = build_backbone(opened.config, opened.tensors)
    compute_as(eager, ARITHMETIC_OF[backend])
    calls = ((0, 5), (5, 10), (10, 11), (11, 14))
    assert_equal_but_for_rounding(runner, eager, _tokens, calls)
    with pytest.raises(InputError, match=r"\[1, 6\]"):
        runner.forward(torch.ones(1, 6, dtype=torch.long), torch.tensor([14]))
    device = "reference" if backend == "vulkan" else "executorch"
    assert verify_program(report.output, tiny.checkpoint, (device,), (TEXT,)).passed


def _tokens(generator):
    return torch.randint(96, (1, 14), generator=generator)


def test_a_ring_has_room_for_a_window_and_a_call(tmp_path):
    folder = write_checkpoint(tmp_path / "c", n_layers=1, max_seq_len=96, sliding_window=6)
    weightless = weightless_checkpoint(open_checkpoint(folder))
    options = ExportOptions(backend="xnnpack", prefill_chunk_size=10)
    backbone = backbone_of_operators(weightless, options, weightless.table_kinds)
    (ring,) = (part for part in backbone.modules() if isinstance(part, RingSdpa))
    assert ring.k_cache.shape[1] == 16 and longest_call(backbone, "xnnpack") == 10


def test_less_memory(tmp_path):
    """Of attention on a GPU: two tensors of heads x tokens x context."""
    weightless = weightless_checkpoint(
        open_checkpoint(write_checkpoint(tmp_path / "c", max_seq_len=2048))
    )
    options = [ExportOptions(prefill_chunk_size=size) for size in (2048, 512)]
    whole, parts = (plan.predicted_bytes.memory for plan in programs_of(weightless, options))
    assert whole - parts > 2 * PARAMS["n_heads"] * (2048 - 512) * 2048 * 4


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (2, "--prefill-chunk-size is 2, expected 3 or more"),
        (65, "takes at most 64 tokens, the length of the context"),
    ],
)
def test_no_call_of_such_a_length(tiny: Tiny, size, said, tmp_path):
    with pytest.raises(InputError, match=said):
        export_checkpoint(
            tiny.checkpoint, tmp_path / "m.pte", ExportOptions(prefill_chunk_size=size)
        )
    assert not list(tmp_path.iterdir())


def test_no_model_states_it(tmp_path):
    with pytest.raises(InputError, match="prefill_chunk_size is not a field"):
        open_checkpoint(write_checkpoint(tmp_path / "c", prefill_chunk_size=8))


def test_a_program_of_chunks_is_not_taken_from_another_template(tiny: Tiny, tmp_path):
    """The three layers that are kept are of calls of one length."""
    for size in (7, 9):
        path = tmp_path / f"{size}.pte"
        export_checkpoint(tiny.checkpoint, path, ExportOptions(prefill_chunk_size=size))
        graph = open_program(path).vulkan
        assert graph.tensor(graph.inputs[0]).shape == (1, size)


def test_the_doctor_says_how_many_tokens_fit_a_buffer(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "c", n_layers=1, max_seq_len=8192)
    path = tmp_path / "m.pte"
    export_checkpoint(checkpoint, path, ExportOptions(max_seq_len=8192))
    remedy = findings(path, "adreno-7xx", "1.5")["sdpa-attention-weights"].remedy
    assert remedy.endswith(f"--prefill-chunk-size {2**27 // (PARAMS['n_heads'] * 8192 * 4)}")
    size = int(remedy.rpartition(" ")[2])
    export_checkpoint(checkpoint, path, ExportOptions(max_seq_len=8192, prefill_chunk_size=size))
    assert "sdpa-attention-weights" not in findings(path, "adreno-7xx", "1.5")
