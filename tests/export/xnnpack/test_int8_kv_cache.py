"""A KV cache of int8: eager equals ExecuTorch's operator, and a program equals eager."""

import pytest
import torch
from tests.support.command_line import invoked
from tests.support.comparisons.planned import assert_as_planned
from tests.support.comparisons.rounding import assert_equal_but_for_rounding, largest_error
from tests.support.defects.edited_methods import edited_method, give_instead, whole
from tests.support.models.peers import int4_checkpoint, random_model
from tests.support.models.tiny_checkpoint import FEW_SHAPES, PARAMS, write_checkpoint
from tests.support.models.tiny_programs import TEXT, write_word_tokenizer

from quatrain.arithmetic import XNNPACK_ARITHMETIC
from quatrain.backbone.layers.kv_cache import CachedAttention, quantize_kv_cache
from quatrain.backbone.params.params import config_from_params
from quatrain.errors import InputError
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.export.plan.plan import plan_programs
from quatrain.export.request import ExportRequest
from quatrain.export.xnnpack.int8_kv_cache import Int8KvCacheSdpa, quantized_per_token
from quatrain.program import open_program
from quatrain.program.file.flatbuffer import Record
from quatrain.program.inspect.report import inspect_program
from quatrain.runtime.executorch import ExecutorchRunner
from quatrain.runtime.unrounded.int8_attention import attend
from quatrain.verify.eager import load_eager
from quatrain.verify.verify import verify_program

INT8 = ExportOptions(backend="xnnpack", kv_cache="int8")
CONTEXT, KV_HEADS, HEAD_DIM, LAYERS = PARAMS["max_seq_len"], 2, 16, 4


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Of layers enough to be replicated."""
    folder = write_checkpoint(
        tmp_path_factory.mktemp("int8") / "c", embedding="int4", output="tied",
        n_layers=LAYERS, **FEW_SHAPES,
    )  # fmt: skip
    write_word_tokenizer(folder, PARAMS["vocab_size"])
    return folder


@pytest.fixture(scope="module")
def report(checkpoint, tmp_path_factory):
    return export_checkpoint(checkpoint, tmp_path_factory.mktemp("program") / "m.pte", INT8)


def test_eager_attention_equals_executorchs_operator():
    """In one call, in pieces and step by step, of the numbers that it rounds to int8 itself."""
    import executorch.kernels.quantized  # noqa: F401
    from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401
    from torch.ao.quantization.fx import _decomposed  # noqa: F401

    config = config_from_params({**PARAMS, "n_heads": 6, "n_kv_heads": 2, "dim": 96}, "params.json")
    attend = CachedAttention(config, config.layer(0))
    operator = Int8KvCacheSdpa(attend)
    unrounded = CachedAttention(config, config.layer(0))
    quantize_kv_cache(attend)
    generator, start = torch.Generator().manual_seed(0), 0
    for length in (1, 1, 5, 40, 1):
        q, k, v = (torch.randn(1, length, heads, 16, generator=generator) for heads in (6, 2, 2))
        expected = operator(q, k, v, start)
        assert largest_error([attend(q, k, v, start)], [expected]) < 1e-5
        assert largest_error([unrounded(q, k, v, start)], [expected]) > 1e-3
        start += length


def test_a_program_equals_eager(checkpoint, report):
    assert_as_planned(report, checkpoint)
    assert not any("lowered separately" in note for note in report.notes)
    eager = load_eager(checkpoint, "8da4w", XNNPACK_ARITHMETIC)
    quantize_kv_cache(eager)

    def text(generator):
        return torch.randint(PARAMS["vocab_size"], (1, 14), generator=generator)

    calls = ((0, 6), (6, 9), *((at, at + 1) for at in range(9, 14)))
    assert_equal_but_for_rounding(ExecutorchRunner(report.output), eager, text, calls)


def test_verify_compares_with_the_same_arithmetic_and_says_so(checkpoint, report):
    verified = verify_program(report.output, checkpoint, ("executorch",), (TEXT,), new_tokens=4)
    assert verified.passed and verified.not_compared == []
    assert verified.notes == ["Keys and values are in int8, in the backbone beside the program too"]
    assert verified.unrounded is not None and verified.unrounded.error < 2e-6


def _steeper(plan):
    """Attention of the first layer, by 0.2 %."""
    scale = Record(table="Double", double_val=1.002 * HEAD_DIM**-0.5)
    give_instead(plan, "quantized_sdpa", 7, scale)


def test_errors_hidden_by_int8_keys_and_values_are_found(checkpoint, report, tmp_path):
    program = edited_method(report.output, _steeper)(tmp_path)
    verified = verify_program(program, checkpoint, ("executorch",), (TEXT,), new_tokens=4)
    assert verified.unrounded is not None and verified.devices[0].problems == []
    assert not verified.passed and verified.problems == [verified.unrounded.problem]


def _one_integer_less(plan):
    give_instead(plan, "::quantize_per_token", 4, whole(126))


def test_keys_and_values_that_int8_clips_are_told(checkpoint, report, tmp_path):
    program = edited_method(report.output, _one_integer_less)(tmp_path)
    verified = verify_program(program, checkpoint, ("executorch",), (TEXT,), new_tokens=4)
    assert verified.unrounded is not None and not verified.passed
    assert "int8 numbers from -128 to 126, expected -128 to 127" in verified.unrounded.problem


class Values:
    """Those of a method's tensors and numbers, of which rounding took nothing."""

    def __init__(self, given):
        self.given = given

    def read(self, index):
        return self.given[index]

    def taken(self, index):
        return torch.zeros(self.given[index].shape)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("by_head", [False, True])
def test_what_is_rounded_to_int8_is_attended_to_as_by_executorchs_operator(by_head, masked):
    import executorch.kernels.quantized  # noqa: F401
    from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401
    from torch.ao.quantization.fx import _decomposed  # noqa: F401

    generator = torch.Generator().manual_seed(0)
    said = {}
    for name, tokens, heads in (("query", 6, 4), ("key", 32, 2), ("value", 32, 2)):
        shape = (1, heads, tokens, 16) if by_head else (1, tokens, heads, 16)
        stored, scales, zero_points = quantized_per_token(torch.randn(shape, generator=generator))
        said |= {name: stored, f"{name[0]}_zero_points": zero_points, f"{name[0]}_scales": scales}
    seen = torch.rand(6, 32, generator=generator) < 0.7
    mask = torch.where(seen, 0.0, -torch.inf) if masked else None
    said |= {
        "start_pos": 0 if masked else 7, "attn_mask": mask, "drpout_p": 0.0,
        "is_causal": not masked, "scale": 0.3, "is_seq_at_dim_2": by_head,
    }  # fmt: skip
    found = attend(Values(list(said.values())), {name: at for at, name in enumerate(said)})
    expected = torch.ops.llama.custom_quantized_sdpa.default(**said)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_its_bytes_are_inspected_and_planned(checkpoint, report):
    """A byte each, and five more for each token and head."""
    nbytes = LAYERS * 2 * CONTEXT * KV_HEADS * (HEAD_DIM + 4 + 1)
    program = open_program(report.output)
    cache = inspect_program(program).kv_cache
    assert (cache.dtype, cache.bytes) == ("int8", nbytes)
    assert program.metadata["quatrain_int8_kv_cache"] is True
    (planned,) = plan_programs(
        checkpoint, ExportRequest(backend="xnnpack", kv_cache="int8")
    ).programs
    assert planned.predicted_bytes is not None and planned.predicted_bytes.caches == nbytes
    (plain,) = plan_programs(checkpoint, ExportRequest(backend="xnnpack"), ("xnnpack",)).programs
    assert plain.predicted_bytes is not None
    assert plain.predicted_bytes.caches == LAYERS * 2 * CONTEXT * KV_HEADS * 64
    shown = invoked(["inspect", str(report.output)]).output
    assert "KV cache int8, " in shown
    shown = invoked(["plan", str(checkpoint), "--kv-cache", "int8"]).output
    assert "xnnpack" in shown and "vulkan" not in shown


def test_vulkan_has_no_operator_for_it():
    with pytest.raises(InputError, match="Vulkan delegate has no attention over an int8 cache"):
        ExportOptions(kv_cache="int8")


def test_it_holds_no_part_of_the_context_alone():
    with pytest.raises(
        InputError, match="--attention-sink keeps only a part of it; leave one of them"
    ):
        ExportOptions(backend="xnnpack", kv_cache="int8", attention_sink=(4, 8))


@pytest.mark.parametrize(
    ("kind", "fields", "found"),
    [
        ("Mistral", {"sliding_window": 8}, "attends to a window of 8 tokens.*--max-seq-len 8"),
        ("Gemma2", {"sliding_window": 64}, "has a soft cap of 50"),
    ],
)
def test_layers_without_an_operator_are_refused_by_name(kind, fields, found, tmp_path):
    checkpoint = int4_checkpoint(random_model(kind, num_hidden_layers=1, **fields), tmp_path)
    with pytest.raises(InputError, match=rf"layers\.0\.attention: {found}"):
        export_checkpoint(checkpoint, tmp_path / "m.pte", INT8)
    assert not (tmp_path / "m.pte").exists()
