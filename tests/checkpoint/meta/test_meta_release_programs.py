"""Programs of Meta's QLoRA and SpinQuant layouts compute what the eager backbone does."""

import pytest
import torch
from tests.support import meta_releases as releases

from quatrain.arithmetic import ARITHMETIC_OF
from quatrain.backbone.build import build_backbone
from quatrain.checkpoint.open import open_checkpoint
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.export.kernel_assignment import dequantize_fallbacks
from quatrain.linear.int4 import compute_as
from quatrain.program import open_program
from quatrain.program.inspect.linears import find_linears
from quatrain.runtime.load import load_runner
from quatrain.runtime.wgpu.adapters import list_adapters

TOKENS = torch.tensor([[5, 9, 200, 33, 7, 61]])
RELEASES = {"qlora": releases.LORA, "spinquant": releases.SPINQUANT}
PROGRAMS = {
    # Vulkan has no kernel for the releases' int8 output.
    "vulkan 8da4w": ExportOptions(max_seq_len=32, allow_fallback=True),
    "vulkan weight-only": ExportOptions("weight-only", max_seq_len=32, allow_fallback=True),
    "xnnpack 8da4w": ExportOptions(backend="xnnpack", max_seq_len=32),
}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("release", RELEASES)
def test_program_equals_eager(release, program, tmp_path):
    options = PROGRAMS[program]
    tensors = releases.release_tensors(adaptors=release == "qlora")
    folder = releases.write_release(tmp_path / "release", tensors, **RELEASES[release])
    report = export_checkpoint(folder, tmp_path / "m.pte", options)
    opened = open_checkpoint(folder)
    eager = build_backbone(opened.config, opened.tensors, options.scheme, max_seq_len=32)
    compute_as(eager, ARITHMETIC_OF[options.backend])
    dequantize_fallbacks(eager, report.linears)
    runners = [load_runner(tmp_path / "m.pte", device) for device in _devices(options.backend)]
    for start, end in ((0, 4), (4, 5), (5, 6)):
        expected = eager(TOKENS[:, start:end], torch.tensor([start]))
        for runner in runners:
            found = runner.forward(TOKENS[:, start:end], torch.tensor([start]))
            error = (found - expected).abs().max() / expected.abs().max()
            assert error < 1e-5, f"{runner} at {start}"
    # Seven linears a layer and the output; beside each of the seven A and B, or in each down
    # projection the two factors of the rotation, which is one operator on the CPU.
    beside = {"qlora": 2 * 7 * 2, "spinquant": 0 if options.backend == "xnnpack" else 2 * 2}
    assert len(report.linears) == 2 * 7 + 1 + beside[release]
    if options.backend == "vulkan":
        program = open_program(tmp_path / "m.pte")
        assert len(program.delegates) == 1
        shapes = {linear.name: linear.in_features for linear in find_linears(program.vulkan)}
        assert shapes["layers.1.feed_forward.w2"] == releases.HIDDEN


def _devices(backend):
    if backend == "xnnpack":
        return ["executorch"]
    return ["reference", "gpu"] if list_adapters() else ["reference"]
