"""Output channels that are not multiples of 4: filled up, and cut off again."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.support.comparisons.rounding import assert_equal_but_for_rounding
from tests.support.devices import DEVICES_OF
from tests.support.models.tiny_checkpoint import write_checkpoint
from tests.support.thorough import thorough

from quatrain.checkpoint.open import open_checkpoint
from quatrain.errors import InputError
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.int4 import Scheme
from quatrain.program import open_program, write_program
from quatrain.program.edit.all_position_logits import give_all_position_logits
from quatrain.program.edit.retarget import retarget
from quatrain.program.inspect.linears import find_linears
from quatrain.program.vulkan.linear_kernels import INT4_LINEARS
from quatrain.runtime.load import load_runner
from quatrain.runtime.reference import ReferenceRunner
from quatrain.targets import examine, fatal_findings
from quatrain.verify.checks.packed_constants import check_packed
from quatrain.verify.eager import load_eager

TOKENS = torch.tensor([[3, 17, 90, 96, 4, 55]])
# Replicated from a template, and lowered in full.
CASES = {
    "97, replicated": (97, 3, Scheme.DYNAMIC_INT8, "int4", "tied"),
    "98, in full": (98, 2, Scheme.WEIGHT_ONLY, "int4", "tied"),
    "99, in full": (99, 1, Scheme.DYNAMIC_INT8, "int4", "int4"),
}
THOROUGH = {"99, replicated": (99, 3, Scheme.WEIGHT_ONLY, "fp", "int4")}


@pytest.fixture(params=[*CASES, *thorough(THOROUGH)])
def made(request, tmp_path):
    vocab_size, layers, scheme, embedding, output = (CASES | THOROUGH)[request.param]
    checkpoint = write_checkpoint(
        tmp_path / "c", embedding, output, vocab_size=vocab_size, n_layers=layers
    )
    report = export_checkpoint(checkpoint, tmp_path / "m.pte", ExportOptions(scheme=scheme))
    return checkpoint, tmp_path / "m.pte", report, scheme


def assert_equal_eager(path, checkpoint, scheme):
    eager = load_eager(checkpoint, scheme)

    def text(generator):
        return torch.randint(eager.config.vocab_size, (1, 6), generator=generator)

    for device in DEVICES_OF["vulkan"]:
        runner = load_runner(path, device)
        assert_equal_but_for_rounding(runner, eager, text, ((0, 4), (4, 5), (5, 6)))


def test_a_padded_program_equals_eager(made) -> None:
    checkpoint, path, report, scheme = made
    opened = open_checkpoint(checkpoint)
    vocab_size = opened.config.vocab_size
    assert_equal_eager(path, checkpoint, scheme)
    program = open_program(path)
    graph = program.vulkan
    for operator in graph.operators:
        if operator.kind in INT4_LINEARS:
            assert graph.tensor(operator.named_args["weights"]).shape[0] % 4 == 0
            channels = graph.tensor(operator.out).shape[-1]
            assert channels % 4 == 0
            if "weight_sums" in operator.named_args:  # of which a phone takes as many a group
                assert graph.tensor(operator.named_args["weight_sums"]).shape[-1] == channels
    assert graph.tensor(graph.outputs[0]).shape == (1, vocab_size)
    output = next(linear for linear in find_linears(graph) if linear.role == "output")
    assert output.out_features == vocab_size
    assert next(row for row in report.linears if row.name == "output").out_features == vocab_size
    checked = check_packed(graph, opened.tensors, opened.group_size)
    assert len(checked) == len(report.linears)
    assert [check for check in checked if check.problem] == []
    embedding = [op for op in graph.operators if op.kind == "et_vk.embedding_q4gsw"]
    if opened.output_kind == "tied":
        weights = graph.operators[output.operator].named_args["weights"]
        table = embedding[0].named_args["weights"]
        assert graph.constant_key(table) == graph.constant_key(weights)
    for operator in embedding:
        assert graph.tensor(operator.named_args["weight_scales"]).shape[0] == vocab_size


@pytest.fixture(scope="module")
def replicated(tmp_path_factory):
    """A checkpoint and its program in 8da4w, of the template of that case."""
    folder = tmp_path_factory.mktemp("padded")
    checkpoint = write_checkpoint(folder / "c", "int4", "tied", vocab_size=97, n_layers=3)
    export_checkpoint(checkpoint, folder / "m.pte")
    return checkpoint, folder / "m.pte"


def test_the_other_scheme_of_a_padded_program_equals_eager(replicated, tmp_path) -> None:
    checkpoint, path = replicated
    program = open_program(path)
    retarget(program, Scheme.WEIGHT_ONLY)
    write_program(program, tmp_path / "wo.pte")
    assert_equal_eager(tmp_path / "wo.pte", checkpoint, Scheme.WEIGHT_ONLY)
    program = open_program(tmp_path / "wo.pte")
    retarget(program, Scheme.DYNAMIC_INT8)
    write_program(program, tmp_path / "back.pte")
    assert_equal_eager(tmp_path / "back.pte", checkpoint, Scheme.DYNAMIC_INT8)
    with pytest.raises(InputError, match="97"):
        ReferenceRunner(path).forward(torch.tensor([[97]]), torch.tensor([0]))


def test_sums_of_one_row_may_be_filled_up_as_executorch_does(replicated) -> None:
    """To a multiple of 8, of a linear that calls of several tokens give one row: none are read."""
    checkpoint, path = replicated
    opened, program = open_checkpoint(checkpoint), open_program(path)
    graph = program.vulkan

    def assert_filled_up_is_right_of(wrong: list[str]) -> None:
        checked = check_packed(graph, opened.tensors, opened.group_size)
        assert [check.name for check in checked if check.problem] == wrong
        found = {each.defect: each.occurrences for each in fatal_findings(program)}
        assert [at.split(":")[0] for at in found.get("dq8ca-sums-apart", [])] == wrong

    for name, wrong in (("output", []), ("layers.1.feed_forward.w2", ["layers.1.feed_forward.w2"])):
        linear = next(one for one in find_linears(graph) if one.name == name)
        operator = graph.operators[linear.operator]
        sums = operator.named_args["weight_sums"]
        filled = np.pad(graph.constant(sums), ((0, 0), (0, 4)))
        added = graph.add_constant(program.add_data(filled.tobytes()), "int32", filled.shape)
        args = tuple(added if value == sums else value for value in operator.args)
        graph.operators[linear.operator] = replace(operator, args=args)
        assert_filled_up_is_right_of(wrong)


def test_the_doctor_finds_padded_channels_right(replicated) -> None:
    program = open_program(replicated[1])
    for scheme in (Scheme.DYNAMIC_INT8, Scheme.WEIGHT_ONLY):
        retarget(program, scheme)
        assert [found.defect for found in examine(program) if "n4" in found.defect] == []


def test_all_positions_of_a_padded_program(replicated, tmp_path) -> None:
    program = open_program(replicated[1])
    retarget(program, Scheme.WEIGHT_ONLY)
    write_program(program, tmp_path / "m.pte")
    program = open_program(tmp_path / "m.pte")
    assert give_all_position_logits(program.vulkan)
    found = ReferenceRunner(program).forward(TOKENS, torch.tensor([0]))
    assert found.shape == (1, TOKENS.shape[1], 97)
    for length in range(1, TOKENS.shape[1] + 1):
        runner = ReferenceRunner(tmp_path / "m.pte")
        last = runner.forward(TOKENS[:, :length], torch.tensor([0]))
        assert torch.allclose(found[:, length - 1], last, rtol=1e-4, atol=1e-4)


def test_logits_that_are_copied_from_a_buffer_before_they_are_cut(tmp_path):
    """In fp16 more logits than a texture's width holds are computed in a buffer: the result is
    cloned, then cut. Rows of a floating-point embedding, 16,385, are what fp16 once misread."""
    checkpoint = write_checkpoint(tmp_path / "c", "fp", vocab_size=16385, n_layers=1)
    options = ExportOptions(scheme=Scheme.WEIGHT_ONLY, activation_dtype="fp16")
    export_checkpoint(checkpoint, tmp_path / "m.pte", options)
    program = open_program(tmp_path / "m.pte")
    assert [linear.out_features for linear in find_linears(program.vulkan)][-1] == 16385
    assert fatal_findings(program) == []
    rows = ReferenceRunner(program).forward(TOKENS, torch.tensor([0]))
    assert rows.numel() == 16385
