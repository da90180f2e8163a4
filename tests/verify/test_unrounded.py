"""What hides in int8's rounding is told by logits without it."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from tests.support.command_line import invoked
from tests.support.comparisons.verified import Tensors, verified, wrong_beside
from tests.support.defects.edited_methods import edited_delegate, edited_method, give_instead
from tests.support.models.peer_models import QWEN, write_peer_checkpoint
from tests.support.models.tiny_programs import TEXT, Tiny
from tests.support.paths import ARTIFACTS

from quatrain.program.file.flatbuffer import Record
from quatrain.runtime.executorch import ExecutorchRunner
from quatrain.verify import verify
from quatrain.verify.checks import constants, unrounded
from quatrain.verify.checks.unrounded import LOGITS_ERROR
from quatrain.verify.verify import VerifyReport

# Delegates that layers share, and the first layer's.
NORM, LINEAR, GATE = 0, 1, 6


def _epsilon_left_out(graph: Record) -> None:
    """Of the norms, whose mean is a linear with it as a bias."""
    node = next(n.xnode_union for n in graph.xnodes if n.xnode_union.table == "XNNFullyConnected")
    node.bias_id = 2**32 - 1


def _rounded_over_all_tokens(graph: Record) -> None:
    tables = [getattr(value.xvalue_union, "quant_params", None) for value in graph.xvalues]
    dynamic = next(one for one in tables if one and one.table == "PerTokenDynamicQuant")
    dynamic.num_nonbatch_dims = 2


def _without_room(plan: Record) -> None:
    """For the logits."""
    plan.values[plan.outputs[0]].val.sizes = [1, 4]


def _steeper(plan: Record, place: int = 10) -> None:
    """Attention of the first layer, by 0.005 %: its argument at that `place`."""
    scale = Record(table="Double", double_val=1.00005 * 16**-0.5)
    give_instead(plan, "sdpa", place, scale)


def test_what_int8_rounding_hides_in_a_delegate(
    tiny: Tiny, tiny_xnnpack: Path, tmp_path: Path
) -> None:
    program = edited_delegate(tiny_xnnpack, NORM, _epsilon_left_out)(tmp_path)
    _assert_hidden(verified(program, tiny.checkpoint))


def test_what_int8_rounding_hides_in_an_operator(
    tiny: Tiny, tiny_xnnpack: Path, tmp_path: Path
) -> None:
    program = edited_method(tiny_xnnpack, _steeper)(tmp_path)
    _assert_hidden(verified(program, tiny.checkpoint))
    words = ["verify", program, tiny.checkpoint, "--prompt", TEXT, "--new-tokens", "3"]
    shown = invoked([*map(str, words), "--tokenizer", str(tmp_path / "words/tokenizer.json")])
    assert shown.exit_code == 1
    assert "    without rounding activations to int8 the logits differ by " in shown.output


def test_what_float16_hides_in_a_program_of_another_exporter(tmp_path: Path) -> None:
    source = ARTIFACTS / "peer-xnnpack-qwen-fp16.pte"
    program = edited_method(source, partial(_steeper, place=7))(tmp_path)
    write_peer_checkpoint(tmp_path / "peer", QWEN)
    report = verified(program, tmp_path / "peer")
    _assert_hidden(report)
    (problem,) = report.problems
    assert problem.startswith("without rounding activations to int8 and float16 the logits differ")


def _assert_hidden(report: VerifyReport) -> None:
    assert not any(check.problems for check in report.devices)
    unrounded = report.unrounded
    assert unrounded is not None and unrounded.error > 2 * unrounded.allowed
    assert unrounded.problem and report.problems == [unrounded.problem] and not report.passed


def test_a_right_one_is_right_without_rounding(
    tiny: Tiny,
    tiny_xnnpack: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where it passes by any measure, what rounding moves logits by, which takes long, is not
    asked."""
    monkeypatch.delattr(unrounded, "nudged_embedding")
    ExecutorchRunner(tiny_xnnpack)  # the first one of a process logs about the processor
    capfd.readouterr()
    report = verified(tiny_xnnpack, tiny.checkpoint)
    assert capfd.readouterr().err == ""  # not what ExecuTorch's kernels log
    assert report.passed and report.not_compared == []
    assert report.unrounded is not None and report.unrounded.error < LOGITS_ERROR
    assert verified(tiny.programs["8da4w"], tiny.checkpoint).unrounded is None


def test_one_of_ours_that_is_not_computed_here_does_not_pass(
    tiny: Tiny, tiny_xnnpack: Path, tmp_path: Path
) -> None:
    """ExecuTorch, which takes the first, is not asked to."""
    otherwise = edited_delegate(tiny_xnnpack, LINEAR, _rounded_over_all_tokens)
    too_small = edited_method(tiny_xnnpack, _without_room)
    found = "it has an XNNPACK value of data type 9, as no", f"{tmp_path / 'edited.pte'}: instr"
    for make, beginning in zip((otherwise, too_small), found, strict=True):
        report = verified(make(tmp_path), tiny.checkpoint)
        assert report.unrounded is not None and not report.passed and report.devices == []
        assert str(report.unrounded.problem).startswith(beginning)


def test_scales_that_xnnpack_stores_in_bfloat16(
    tiny: Tiny, tiny_xnnpack: Path, tmp_path: Path
) -> None:
    """A checkpoint whose scales have more digits is held against what of them is stored."""
    program = Path(shutil.copy(tiny_xnnpack, tmp_path))

    def finer(tensors: Tensors) -> None:
        for name in tensors:
            if name.startswith("layers") and name.endswith("scales"):
                tensors[name] = tensors[name] * (1 + 2.0**-10)

    assert wrong_beside(program, tiny.checkpoint, finer) == []
    report = verified(program, tmp_path / "other")
    assert report.passed and report.unrounded is not None and report.unrounded.error < LOGITS_ERROR


def test_scales_that_another_exporter_rounds_to_float16_first(
    tiny: Tiny, tiny_xnnpack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of numbers just above the middle of two in bfloat16, float16 is that middle, which bfloat16
    rounds to the even one: to that above it if rounded at once."""
    program = Path(shutil.copy(tiny_xnnpack, tmp_path))

    def above_the_middle(tensors: Tensors) -> None:
        for name in tensors:
            if name.endswith(("wo.scales", "w2.scales")):  # others are stored together
                stored = tensors[name].bfloat16()
                bits = stored.view(torch.int16)
                middle = (stored.double() + (bits + 1).view(torch.bfloat16).double()) / 2
                above = (middle * (1 + 2.0**-14)).float()
                tensors[name] = torch.where(bits % 2 == 0, above, stored.float())

    assert wrong_beside(program, tiny.checkpoint, above_the_middle)  # of ours, which does not
    shutil.rmtree(tmp_path / "other")
    for module in (constants, verify):
        monkeypatch.setattr(module, "is_quatrains", lambda program: False)
    assert wrong_beside(program, tiny.checkpoint, above_the_middle) == []


def test_an_embedding_that_another_exporter_rounds_to_int4(
    tiny: Tiny, tiny_xnnpack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ExecuTorch's does on its way, with a checkpoint whose embedding is in floating point: it
    is right to be the nearest, and so is what is computed from it."""
    for module in (constants, verify):
        monkeypatch.setattr(module, "is_quatrains", lambda program: False)
    program = Path(shutil.copy(tiny_xnnpack, tmp_path))

    def in_floating_point(tensors: Tensors, row: float = 1.0) -> None:
        weight, scales = (tensors.pop(f"tok_embeddings.{part}") for part in ("weight", "scales"))
        tensors.pop("tok_embeddings.zeros", None)
        steps = scales.reshape(len(weight), -1).repeat_interleave(32, 1)
        noise = torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)) - 0.5
        table = (weight + 0.9 * noise) * steps
        table[17] *= row
        tensors["tok_embeddings.weight"] = table

    assert wrong_beside(program, tiny.checkpoint, in_floating_point) == []
    report = verified(program, tmp_path / "other")
    assert report.passed and report.unrounded is not None and report.unrounded.error < LOGITS_ERROR
    (said,) = report.not_compared
    assert said.startswith("what rounding tok_embeddings to int4 does: the program holds the near")
    shutil.rmtree(tmp_path / "other")
    changed = partial(in_floating_point, row=1.1)
    assert wrong_beside(program, tiny.checkpoint, changed) == ["tok_embeddings"]


def _exact_gelu(graph: Record) -> None:
    """In place of SiLU, which is a sigmoid and a product."""
    at = [each.xnode_union.table for each in graph.xnodes].index("XNNSigmoid")
    silu = graph.xnodes[at + 1].xnode_union
    table = {"input_id": silu.input1_id, "output_id": silu.output_id, "flags": 0}
    graph.xnodes[at + 1].xnode_union = Record(table="XNNGelu", **table)
    del graph.xnodes[at]


def test_gelu_that_another_exporter_does_not_approximate(
    tiny: Tiny, tiny_xnnpack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ExecuTorch's partitioner takes Gemma's for exact GELU: the rest of the program is right."""
    program = edited_delegate(tiny_xnnpack, GATE, _exact_gelu)(tmp_path)
    approximate = Path(shutil.copytree(tiny.checkpoint, tmp_path / "other"))
    params = json.loads((approximate / "params.json").read_text()) | {"act_fn": "gelu_approx"}
    (approximate / "params.json").write_text(json.dumps(params))
    report = verified(program, approximate)  # as one of ours, which approximates
    assert not report.passed
    for module in (constants, verify):
        monkeypatch.setattr(module, "is_quatrains", lambda program: False)
    report = verified(program, approximate)
    assert report.passed and report.unrounded is not None and report.unrounded.error < LOGITS_ERROR
    (said,) = report.not_compared
    assert said.startswith("what exact GELU in place of the model's tanh approximation does")
