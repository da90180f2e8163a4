"""`--runtime 1.2`: programs in the operators that ExecuTorch 1.2 registers compute the same."""

from pathlib import Path

import pytest
import torch
from tests.support.comparisons.planned import assert_as_planned
from tests.support.devices import DEVICES_OF
from tests.support.models.tiny_checkpoint import write_checkpoint
from tests.support.thorough import thorough

from quatrain.errors import InputError
from quatrain.export import ExportOptions, ExportRequest, export_checkpoint, export_for_target
from quatrain.program import open_program, write_program
from quatrain.program.edit.older_operators import write_older_operators
from quatrain.program.vulkan.memory import memory_conflicts
from quatrain.runtime.load import load_runner
from quatrain.targets import choose_for_target, examine, require_target
from quatrain.targets.runtimes import unknown_operators
from quatrain.verify.eager import load_eager

DEVICES = DEVICES_OF["vulkan"]
TOKENS = [5, 17, 40, 9, 22, 61, 33]
KINDS = {
    "meta": {"embedding": "int4"},
    "hugging face": {"embedding": "int4", "use_hf_rope": True, "output": "tied"},
    "partial": {"use_hf_rope": True, "head_dim": 16, "partial_rotary_factor": 0.5},
    "biases": {"use_hf_rope": True, "attention_qkv_bias": True, "use_qk_norm": True},
    "98 tokens": {"vocab_size": 98, "use_hf_rope": True},
}


FEW = ("biases",)


@pytest.fixture(scope="module", params=[*FEW, *thorough(kind for kind in KINDS if kind not in FEW)])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A checkpoint and its weight-only program for runtime 1.2."""
    folder = tmp_path_factory.mktemp("older")
    checkpoint = write_checkpoint(folder / "c", n_layers=3, **KINDS[request.param])
    asked = ExportRequest(target="adreno-8xx", runtime="1.2")
    assert_as_planned(export_for_target(checkpoint, folder / "m.pte", asked), checkpoint)
    return checkpoint, folder / "m.pte"


def test_what_is_exported_for_1_2_is_known_there(exported: tuple[Path, Path]) -> None:
    program = open_program(exported[1])
    assert unknown_operators(program.vulkan, "1.2") == []
    found = [f.defect for f in examine(program, None, "1.2") if f.applies]
    assert set(found) <= {"reduce-barrier", "adreno740-block-index"}, found
    assert memory_conflicts(program.vulkan) == []


@pytest.mark.parametrize("device", DEVICES)
@torch.inference_mode()
def test_it_computes_what_eager_computes(exported: tuple[Path, Path], device: str) -> None:
    checkpoint, path = exported
    runner = load_runner(path, device)
    backbone = load_eager(checkpoint, runner_scheme(path))
    for tokens, position in ((TOKENS, 0), ([3], len(TOKENS)), ([8], len(TOKENS) + 1)):
        inputs = torch.tensor([tokens]), torch.tensor([position])
        expected, found = backbone(*inputs).reshape(-1), runner.forward(*inputs).reshape(-1)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def runner_scheme(path: Path):
    from quatrain.verify.program_info import program_info

    return program_info(open_program(path)).scheme


def test_8da4w_is_rewritten_too(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "c", use_hf_rope=True, n_layers=1)
    export_checkpoint(checkpoint, tmp_path / "m.pte", ExportOptions())
    program = open_program(tmp_path / "m.pte")
    before = load_runner(program, "reference").forward(torch.tensor([TOKENS]), torch.tensor([0]))
    write_older_operators(program)
    write_program(program, tmp_path / "older.pte")
    assert unknown_operators(open_program(tmp_path / "older.pte").vulkan, "1.2") == []
    runner = load_runner(tmp_path / "older.pte", "reference")
    after = runner.forward(torch.tensor([TOKENS]), torch.tensor([0]))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def test_a_gpu_that_it_would_hang_on_is_refused(exported: tuple[Path, Path]) -> None:
    choice = choose_for_target("mali-g76", "1.2")
    with pytest.raises(InputError, match=r"would fail on mali-g76, runtime 1\.2: reduce-barrier"):
        require_target(open_program(exported[1]), choice, exported[1])
