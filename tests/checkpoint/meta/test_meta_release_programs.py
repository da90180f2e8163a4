"""Programs of Meta's QLoRA and SpinQuant layouts compute what the eager backbone does."""

import pytest
import torch
from tests.support.comparisons.rounding import assert_equal_but_for_rounding
from tests.support.comparisons.verified import assert_verified
from tests.support.devices import DEVICES_OF
from tests.support.formats import meta_releases as releases
from tests.support.models import tiny_models as tiny
from tests.support.thorough import thorough

from quatrain.arithmetic import ARITHMETIC_OF
from quatrain.backbone.build import build_backbone
from quatrain.checkpoint.open import open_checkpoint
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.export.kernels.assignment import dequantize_fallbacks
from quatrain.int4 import Scheme
from quatrain.linear.int4 import compute_as
from quatrain.program import open_program, write_program
from quatrain.program.edit.retarget import retarget
from quatrain.program.inspect.linears import find_linears
from quatrain.runtime.load import load_runner

# Seven linears a layer and the output; beside each of the seven A and B, or in each down projection
# the two factors of the rotation, which is one operator on the CPU.
LINEARS = 2 * 7 + 1
RELEASES = {"qlora": releases.LORA, "spinquant": releases.SPINQUANT}
CALLS = ((0, 4), (4, 5), (5, 6))
# Vulkan has no kernel for the releases' int8 output.
VULKAN = ExportOptions(max_seq_len=32, allow_fallback=True)
XNNPACK = ExportOptions(backend="xnnpack", max_seq_len=32)


@pytest.fixture(params=["spinquant", *thorough(["qlora"])])
def release(request, tmp_path):
    """The name of a release, and its folder."""
    tensors = releases.release_tensors(adaptors=request.param == "qlora")
    folder = tmp_path / "release"
    return request.param, releases.write_release(folder, tensors, **RELEASES[request.param])


def test_vulkan_programs_equal_eager(release, tmp_path):
    """In 8da4w as exported, and weight-only as retargeted from that: to export it takes as long
    again, and gives the same (tests/export/test_knob_programs.py)."""
    name, folder = release
    report = export_checkpoint(folder, tmp_path / "m.pte", VULKAN)
    assert len(report.linears) == LINEARS + {"qlora": 2 * 7 * 2, "spinquant": 2 * 2}[name]
    assert_equal_eager(tmp_path / "m.pte", folder, Scheme.DYNAMIC_INT8, report)
    program = open_program(tmp_path / "m.pte")
    assert len(program.delegates) == 1
    linears = {linear.name: linear for linear in find_linears(program.vulkan)}
    assert linears["layers.1.feed_forward.w2"].in_features == releases.HIDDEN
    beside = [name for name in linears if ".adaptor." in name]
    assert len(beside) == {"qlora": 2 * 7 * 2, "spinquant": 0}[name]
    assert_verified(tmp_path / "m.pte", folder)
    retarget(program, "weight-only")
    write_program(program, tmp_path / "float.pte")
    assert_equal_eager(tmp_path / "float.pte", folder, Scheme.WEIGHT_ONLY, report)
    assert_verified(tmp_path / "float.pte", folder)


def test_xnnpack_programs_equal_eager(release, tmp_path):
    name, folder = release
    report = export_checkpoint(folder, tmp_path / "m.pte", XNNPACK)
    assert len(report.linears) == LINEARS + {"qlora": 2 * 7 * 2, "spinquant": 0}[name]
    assert_equal_eager(tmp_path / "m.pte", folder, Scheme.DYNAMIC_INT8, report)


def assert_equal_eager(path, folder, scheme, report):
    backend = report.options.backend
    opened = open_checkpoint(folder)
    eager = build_backbone(opened.config, opened.tensors, scheme, max_seq_len=32)
    compute_as(eager, ARITHMETIC_OF[backend])
    dequantize_fallbacks(eager, report.linears)
    for device in DEVICES_OF[backend]:
        assert_equal_but_for_rounding(load_runner(path, device), eager, _text, CALLS)


def _text(generator):
    return torch.randint(tiny.PARAMS["vocab_size"], (1, 6), generator=generator)
