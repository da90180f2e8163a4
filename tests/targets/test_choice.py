"""What to export for a GPU and a runtime."""

import re
from pathlib import Path

import pytest
import typer
from tests.support.made_once import made_once
from tests.support.programs import artifact
from tests.support.tiny_checkpoint import write_checkpoint
from typer.testing import CliRunner

from quatrain.arithmetic import VULKAN_ARITHMETIC, VULKAN_WITHOUT_DOT_PRODUCTS
from quatrain.commands.export import export
from quatrain.errors import InputError
from quatrain.export import ExportOptions, export_checkpoint, plan_program
from quatrain.program import open_program
from quatrain.stages import Stages
from quatrain.targets import (
    PlannedProgram,
    choose_for_target,
    examine,
    find_gpu,
    load_gpus,
    require_target,
)
from quatrain.targets.as_on import arithmetic_as_on
from quatrain.targets.phones import load_phones


def test_a_valhall_mali_before_the_fix_gets_weight_only() -> None:
    choice = choose_for_target("mali-g715", "1.3")
    assert choice.scheme == "weight-only"
    assert any("dq8ca-zp-binding-float" in reason for reason in choice.reasons)
    assert choose_for_target("mali-g715", "1.5").scheme == "8da4w"
    assert choose_for_target("mali-g715").scheme == "weight-only"  # any runtime: the worst


def test_the_int4_embedding_is_avoided_where_it_crashes() -> None:
    assert "int4-embedding" in choose_for_target("mali-g610").avoid
    assert "int4-embedding" not in choose_for_target("mali-g610", "1.3").avoid
    assert "int4-embedding" not in choose_for_target("adreno-8xx").avoid


@pytest.mark.parametrize("runtime", ["1.0", "1.1", "1.2"])
def test_a_release_that_lacks_what_is_written_is_refused_with_the_reason(runtime: str) -> None:
    with pytest.raises(InputError, match=f"{runtime}: does not register et_vk.rms_norm.*1.3 or"):
        choose_for_target("mali-g715", runtime)
    with pytest.raises(InputError, match=r"1.9.*known are 1.0"):
        choose_for_target("mali-g715", "1.9")


def test_a_phone_is_its_gpu_and_says_so() -> None:
    choice = choose_for_target("pixel-8", "1.5")
    assert choice.gpu == "mali-g715"
    assert choice.reasons[0].startswith("Google Pixel 8: Google Tensor G3, Mali-G715")
    assert choice.scheme == choose_for_target("mali-g715", "1.5").scheme
    with pytest.raises(InputError, match=r"Pixel 6 has a Mali-G78.*no profile"):
        choose_for_target("pixel-6")
    with pytest.raises(InputError, match=r"pixel-1'; known are mali-g76, .*the phones pixel-6"):
        choose_for_target("pixel-1")
    for phone in load_phones():
        assert phone.source and (phone.gpu_id is None or find_gpu(phone.gpu_id))


def test_as_on_gives_the_arithmetic_of_the_gpu() -> None:
    assert arithmetic_as_on(None) == arithmetic_as_on("pixel-8@1.3") == VULKAN_ARITHMETIC
    assert arithmetic_as_on("mali-g76") == VULKAN_WITHOUT_DOT_PRODUCTS
    for wrong in ("mali-g9", "mali-g715@1.9", "mali-g715@", "@1.3"):
        with pytest.raises(InputError):
            arithmetic_as_on(wrong)


def test_figures_become_partitioner_options() -> None:
    choice = choose_for_target("llvmpipe", "1.5")
    assert choice.partitioner == {
        "buffer_limit": 134217728,
        "texture_limits": (4096, 4096, 4096),
    }
    assert choose_for_target("desktop", "1.5").partitioner["texture_limits"] == (2048,) * 3


def test_fp16_only_where_a_source_says_so() -> None:
    assert choose_for_target("adreno-8xx", "1.5").activation_dtype == "fp16"
    assert choose_for_target("xclipse", "1.5").activation_dtype == "fp32"


@pytest.fixture(scope="module")
def made(shared):
    """Exports a checkpoint of 64 channels and many tokens as chosen, each kind of program once."""
    shape = {"n_layers": 1, "max_seq_len": 128, "vocab_size": 16384}
    checkpoint = made_once(shared / "target", lambda folder: write_checkpoint(folder, **shape))

    def make(gpu: str, runtime: str | None, max_seq_len: int):
        choice = choose_for_target(gpu, runtime, plan_program(checkpoint, None, max_seq_len))
        kind = (choice.scheme, choice.activation_dtype, choice.partitioner, max_seq_len)
        options = ExportOptions(
            scheme=choice.scheme,
            activation_dtype=choice.activation_dtype,
            target=choice,
            max_seq_len=max_seq_len,
        )
        folder = made_once(
            shared / f"target-{'-'.join(re.findall('[a-z0-9]+', str(kind)))}",
            lambda folder: export_checkpoint(checkpoint, folder / "model.pte", options),
        )
        return choice, open_program(folder / "model.pte")

    return make


@pytest.mark.parametrize("gpu", [gpu.id for gpu in load_gpus()])
@pytest.mark.parametrize("runtime", ["1.3", "1.4", "1.5", None])
@pytest.mark.parametrize("max_seq_len", [48, 128])
def test_what_is_chosen_passes_the_doctor(made, gpu, runtime, max_seq_len) -> None:
    _, program = made(gpu, runtime, max_seq_len)
    found = examine(program, find_gpu(gpu), runtime)
    assert [finding.defect for finding in found if finding.applies] == []
    assert "buffer-limit" not in [finding.defect for finding in found]


def test_8da4w_where_no_prompt_is_longer_than_the_sums_hold(made) -> None:
    chosen = {
        (runtime, length): made("adreno-8xx", runtime, length)[0]
        for runtime in ("1.4", "1.5")
        for length in (32, 48, 128)
    }
    assert {key: (made.scheme, made.activation_dtype) for key, made in chosen.items()} == {
        ("1.4", 32): ("8da4w", "fp16"),
        ("1.4", 48): ("8da4w", "fp32"),
        ("1.4", 128): ("weight-only", "fp16"),
        ("1.5", 32): ("8da4w", "fp16"),
        ("1.5", 48): ("8da4w", "fp16"),
        ("1.5", 128): ("8da4w", "fp16"),
    }
    reasons = chosen["1.4", 128].reasons
    assert any("weight-only: dq8ca-m-gt-k" in reason for reason in reasons)
    assert any("--max-seq-len 32 or less" in reason for reason in reasons)


def test_what_was_asked_for_is_the_reason() -> None:
    asked = PlannedProgram(scheme="weight-only", activation_dtype="fp32")
    choice = choose_for_target("mali-g715", "1.5", asked)
    assert (choice.scheme, choice.activation_dtype) == ("weight-only", "fp32")
    assert not any("8da4w" in reason for reason in choice.reasons)
    assert any("--weight-only-linear" in reason for reason in choice.reasons)


def test_a_program_that_would_fail_is_refused_by_the_name_it_was_to_have() -> None:
    program = open_program(artifact("peer-8da4w-fp32-emb4"))
    with pytest.raises(InputError, match=r"^asked\.pte: would fail.*embedding-q4-dynamic-oob"):
        require_target(program, choose_for_target("mali-g715"), Path("asked.pte"))
    fixed = [f.defect for f in examine(program, find_gpu("mali-g715"), "1.3") if f.applies]
    assert "embedding-q4-dynamic-oob" not in fixed


def test_the_doctors_conditional_findings_are_refused_too(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "c", max_seq_len=128)
    options = ExportOptions(target=choose_for_target("mali-g720", "1.4"))
    with pytest.raises(InputError) as refused:
        export_checkpoint(checkpoint, tmp_path / "g.pte", options)
    message = str(refused.value)
    assert message.startswith(f"{tmp_path}/g.pte: would fail on mali-g720, runtime 1.4: dq8ca-m-")
    assert f"quatrain retarget {tmp_path}/g.pte " in message
    assert ".tmp" not in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c"]


def test_an_int4_embedding_to_avoid_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "c", embedding="int4")
    options = ExportOptions(target=choose_for_target("mali-g610"), scheme="weight-only")
    stages = Stages()
    with pytest.raises(InputError, match=r"would fail on mali-g610.*oob.*--embedding int8"):
        export_checkpoint(checkpoint, tmp_path / "g.pte", options, stages=stages)
    assert set(stages.seconds) == {"open the checkpoint"}


def test_a_target_is_for_the_vulkan_backend(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "c")
    asked = [checkpoint, "-o", "g.pte", "--target", "mali-g715", "--backend", "xnnpack"]
    app = typer.Typer()
    app.command()(export)
    done = CliRunner().invoke(app, [str(argument) for argument in asked])
    assert "--target mali-g715 is a GPU, for the Vulkan backend" in str(done.exception)
    assert done.output == ""  # no reasons for a choice that nobody gets


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="no profile of a device"):
        choose_for_target("mali-t604")
    with pytest.raises(InputError, match="no ExecuTorch version"):
        choose_for_target("mali-g715", "latest")
