"""What to export for a GPU and a runtime."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.command_line import invoked
from tests.support.made_once import made_once
from tests.support.models.tiny_checkpoint import write_checkpoint
from tests.support.programs import artifact
from tests.support.thorough import thorough

from quatrain.arithmetic import VULKAN_ARITHMETIC, VULKAN_WITHOUT_DOT_PRODUCTS
from quatrain.errors import InputError
from quatrain.export import ExportOptions, export_checkpoint, plan_program
from quatrain.int4 import Scheme
from quatrain.program import open_program
from quatrain.program.edit.retarget import retarget
from quatrain.stages import Stages
from quatrain.targets import (
    PlannedProgram,
    choose_for_target,
    examine,
    find_gpu,
    load_defects,
    load_gpus,
    require_target,
)
from quatrain.targets.as_on import arithmetic_as_on
from quatrain.targets.catalogue import load_toml
from quatrain.targets.phones import load_phones
from quatrain.targets.runtimes import known_releases
from quatrain.targets.speed import SpeedFact, slower_scheme


def test_a_valhall_mali_before_the_fix_gets_weight_only() -> None:
    choice = choose_for_target("mali-g715", "1.3")
    assert choice.scheme == "weight-only"
    assert any("dq8ca-zp-binding-float" in reason for reason in choice.reasons)
    assert choice.decided in choice.reasons and choice.decided.startswith("weight-only: dq8ca-")
    assert choose_for_target("mali-g715", "1.5").scheme == "8da4w"
    assert choose_for_target("mali-g715").scheme == "weight-only"  # any runtime: the worst


def reasons_of(gpu: str, runtime: str | None, **planned: object) -> tuple[str, str]:
    """The scheme that is chosen, and all reasons."""
    choice = choose_for_target(gpu, runtime, PlannedProgram(**planned))  # type: ignore
    return choice.scheme, "\n".join(choice.reasons)


def test_where_8da4w_is_right_a_measured_speed_decides() -> None:
    scheme, said = reasons_of("adreno-8xx", "1.5")
    assert scheme == "weight-only"
    assert "8da4w: in fp16 no known defect of its kernel applies" in said
    assert "weight-only all the same: adreno-dq8ca-decode: decodes 22 % slower" in said
    assert "measured on Adreno 840: https://github.com/pytorch/executorch/issues/22968" in said


def test_a_speed_measured_on_another_gpu_is_reported_but_not_used() -> None:
    scheme, said = reasons_of("adreno-7xx", "1.5")
    assert scheme == "8da4w"
    assert "neither scheme is measured to be the slower" in said
    assert "measured on Adreno 840, not on this GPU, and not counted" in said


def test_a_gpu_of_which_nothing_is_measured_says_so() -> None:
    scheme, said = reasons_of("xclipse", "1.5")
    assert scheme == "8da4w"
    assert "neither scheme is measured" in said and "known of its speed" not in said
    assert choose_for_target("xclipse", "1.5").evidence == []


def test_correctness_comes_before_speed() -> None:
    scheme, said = reasons_of("adreno-8xx", "1.4", rows=128, channels=64)
    assert scheme == "weight-only" and "weight-only: dq8ca-m-gt-k" in said
    assert "all the same" not in said
    scheme, said = reasons_of("adreno-8xx", "1.5", group_size=256)
    assert scheme == "weight-only" and "groups of 256" in said and "all the same" not in said


def test_without_dot_products_both_schemes_spill_before_1_4_and_8da4w_after() -> None:
    scheme, said = reasons_of("mali-g76", "1.3")
    assert scheme == "8da4w" and "mali-q4-tile: weight-only prefill" in said
    scheme, said = reasons_of("mali-g76", "1.4")
    assert scheme == "weight-only" and "all the same: mali-q4-tile-8da4w" in said
    for_cpu = [fact for fact in choose_for_target("mali-g76", "1.4").evidence if fact.against]
    assert [(fact.defect, fact.against, fact.factor) for fact in for_cpu] == [
        ("mali-prefill-behind-cpu", "xnnpack", 0.22)
    ]


def test_8da4w_where_weight_only_is_measured_to_be_slower(monkeypatch) -> None:
    measured = SpeedFact("a", ("weight-only",), "prefill", 0.5, None, True, "a GPU", "slow", "here")
    monkeypatch.setattr("quatrain.targets.choice.speed_facts", lambda *_: [measured])
    scheme, said = reasons_of("xclipse", "1.5")
    assert scheme == "8da4w" and "8da4w is also the faster one: a: slow" in said


def test_decode_counts_before_prefill() -> None:
    def fact(scheme: str, phase: str, measured: bool = True) -> SpeedFact:
        return SpeedFact("a", (scheme,), phase, 0.5, None, measured, "a GPU", "slow", "here")

    both = [fact("weight-only", "prefill"), fact("8da4w", "decode")]
    found = slower_scheme(both)
    assert found and found[0] == "8da4w"
    assert slower_scheme([fact("8da4w", "decode", measured=False)]) is None
    assert slower_scheme([fact("8da4w", "decode"), fact("weight-only", "decode")]) is None


def test_the_kernels_that_spill_are_those_that_the_releases_take() -> None:
    """The facts on Mali's tile follow from which kernel a linear takes."""
    spilling = {
        (path["operator"], path.get("dot_products"), path.get("until"))
        for path in load_toml("runtimes.toml")["paths"]
        if path["kernel"] == "linear_q4gsw_tiled"
    }
    assert spilling == {
        ("et_vk.linear_q4gsw", None, "1.3"),
        ("et_vk.linear_dq8ca_q4gsw", False, None),
    }
    defects = {defect.id: defect for defect in load_defects()}
    assert defects["mali-q4-tile"].fixed_in == "1.4"
    assert defects["mali-q4-tile-8da4w"].fixed_in is None


def test_the_evidence_is_in_text_and_json(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "c", n_layers=1)
    asked = ["export", checkpoint, "-o", tmp_path / "m.pte", "--target", "adreno-8xx"]
    done = invoked([*asked, "--runtime", "1.5", "--json"])
    assert "known of its speed: adreno-dq8ca-decode: 8da4w decode" in done.stderr
    evidence = json.loads(done.stdout)["options"]["target"]["evidence"]
    (decode,) = [fact for fact in evidence if fact["defect"] == "adreno-dq8ca-decode"]
    assert (decode["schemes"], decode["factor"], decode["measured"]) == (["8da4w"], 0.78, True)


def test_what_was_asked_for_is_not_changed_by_speed() -> None:
    scheme, said = reasons_of("adreno-8xx", "1.5", scheme=Scheme.DYNAMIC_INT8)
    assert scheme == "8da4w" and "8da4w: as asked for" in said


def test_a_defect_of_no_tagged_release_avoids_nothing() -> None:
    """The int4 embedding came with its fix, in 1.3; a build of main of March 2026 lacks it."""
    program = open_program(artifact("peer-8da4w-fp32-emb4"))
    for runtime in known_releases():
        found = [f.defect for f in examine(program, [find_gpu("mali-g715")], runtime)]
        assert "embedding-q4-dynamic-oob" not in found
    (found,) = [f for f in examine(program, [find_gpu("mali-g715")], None) if "oob" in f.defect]
    assert found.certainty == "possible" and "no tagged release has it" in (found.condition or "")


@pytest.mark.parametrize(
    ("runtime", "why"), [("1.0", "no et_vk.select_as_symint"), ("1.1", "issue 17293")]
)
def test_a_release_that_nothing_is_exported_for_is_refused(runtime: str, why: str) -> None:
    with pytest.raises(InputError, match=f"--runtime {runtime}: nothing is exported.*{why}"):
        choose_for_target("mali-g715", runtime)
    with pytest.raises(InputError, match=r"1.9.*known are 1.0"):
        choose_for_target("mali-g715", "1.9")


def test_a_release_of_older_operators_gets_fp32() -> None:
    scheme, said = reasons_of("adreno-8xx", "1.2")
    assert scheme == "weight-only" and "runtime 1.2 does not register RMS norm" in said
    assert choose_for_target("adreno-8xx", "1.2").activation_dtype == "fp32"
    assert "and all in fp32" in said
    asked = choose_for_target("adreno-8xx", "1.2", PlannedProgram(activation_dtype="fp16"))
    assert not any("all in fp32" in reason for reason in asked.reasons)


def test_a_phone_is_its_gpu_and_says_so() -> None:
    choice = choose_for_target("pixel-8", "1.5")
    assert choice.gpu == "mali-g715"
    assert choice.reasons[0].startswith("Google Pixel 8: Google Tensor G3, Mali-G715")
    assert choice.scheme == choose_for_target("mali-g715", "1.5").scheme
    with pytest.raises(InputError, match=r"Pixel 6 has a Mali-G78.*no profile.*--backend xnnpack"):
        choose_for_target("pixel-6")
    known = "known are mali-g76, .*the phones pixel-6"
    with pytest.raises(InputError, match=rf"pixel-1'; most like it are pixel-10, .*; {known}"):
        choose_for_target("pixel-1")
    named = "two chips, .*: name galaxy-s24-exynos or galaxy-s24-snapdragon"
    with pytest.raises(InputError, match=rf"galaxy-s24' is sold with {named}"):
        choose_for_target("galaxy-s24")
    for phone in load_phones():
        assert phone.source and (phone.gpu_id is None or find_gpu(phone.gpu_id))


def test_as_on_gives_the_arithmetic_of_the_gpu() -> None:
    assert arithmetic_as_on(None) == arithmetic_as_on("pixel-8@1.4") == VULKAN_ARITHMETIC
    assert arithmetic_as_on("pixel-8@1.3") == replace(VULKAN_ARITHMETIC, half_sums=False)
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
def small(shared):
    """A checkpoint of 64 channels and many tokens."""
    shape = {"n_layers": 1, "max_seq_len": 128, "vocab_size": 16384}
    return made_once(shared / "target", lambda folder: write_checkpoint(folder, **shape))


@pytest.fixture(scope="module")
def made(shared, small):
    """Exports it as chosen, each kind of program once.

    In 8da4w, and where weight-only is chosen retargeted from that: to export it takes as long
    again, and gives the same (tests/export/test_knob_programs.py).
    """

    def make(gpu: str, runtime: str | None, max_seq_len: int):
        choice = choose_for_target(gpu, runtime, plan_program(small, None, max_seq_len))
        kind = (choice.activation_dtype, choice.partitioner, max_seq_len)
        options = ExportOptions(
            activation_dtype=choice.activation_dtype,
            target=choice,
            max_seq_len=max_seq_len,
            examine=False,
        )
        folder = made_once(
            shared / f"target-{'-'.join(re.findall('[a-z0-9]+', str(kind)))}",
            lambda folder: export_checkpoint(small, folder / "model.pte", options),
        )
        program = open_program(folder / "model.pte")
        retarget(program, choice.scheme)
        return program

    return make


@pytest.mark.parametrize("gpu", [gpu.id for gpu in load_gpus()])
@pytest.mark.parametrize("runtime", ["1.3", "1.4", "1.5", None])
@pytest.mark.parametrize("max_seq_len", [48, *thorough([128])])
def test_what_is_chosen_passes_the_doctor(made, gpu, runtime, max_seq_len) -> None:
    found = examine(made(gpu, runtime, max_seq_len), [find_gpu(gpu)], runtime)
    assert [finding.defect for finding in found if finding.applies] == []
    assert "buffer-limit" not in [finding.defect for finding in found]


def test_8da4w_where_no_prompt_is_longer_than_the_sums_hold(small) -> None:
    chosen = {
        (runtime, length): choose_for_target("llvmpipe", runtime, plan_program(small, None, length))
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
    assert any("prefill-chunk-size of 32 or less" in reason for reason in reasons)
    in_parts = choose_for_target("llvmpipe", "1.4", plan_program(small, None, 128, 32))
    assert (in_parts.scheme, in_parts.activation_dtype) == ("8da4w", "fp16")


def test_what_was_asked_for_is_the_reason() -> None:
    asked = PlannedProgram(scheme="weight-only", activation_dtype="fp32")
    choice = choose_for_target("mali-g715", "1.5", asked)
    assert (choice.scheme, choice.activation_dtype) == ("weight-only", "fp32")
    assert not any("8da4w" in reason for reason in choice.reasons)
    assert {"weight-only: as asked for", "fp32: as asked for"} <= set(choice.reasons)


def test_a_program_that_would_fail_is_refused_by_the_name_it_was_to_have() -> None:
    program = open_program(artifact("peer-8da4w-fp32-emb4"))
    retarget(program, Scheme.DYNAMIC_INT8, zero_point_dtype="float32")
    choice = choose_for_target("mali-g715", "1.3")
    with pytest.raises(InputError, match=r"^asked\.pte: would fail.*dq8ca-zp-binding-float"):
        require_target(program, choice, Path("asked.pte"))
    fixed = open_program(artifact("peer-8da4w-fp32-emb4"))
    with pytest.raises(InputError, match=r"^asked\.pte: would fail on [^:]*: sdpa-uneven-calls"):
        require_target(fixed, choice, Path("asked.pte"))
    require_target(fixed, choose_for_target("mali-g715", "1.5"), Path("asked.pte"))


def test_the_doctors_conditional_findings_are_refused_too(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "c", n_layers=1, max_seq_len=128)
    options = ExportOptions(target=choose_for_target("mali-g720", "1.4"))
    stages = Stages()
    with pytest.raises(InputError) as refused:
        export_checkpoint(checkpoint, tmp_path / "g.pte", options, stages=stages)
    message = str(refused.value)
    assert message.startswith("would fail on mali-g720, runtime 1.4: dq8ca-m-")
    assert "Export with --weight-only-linear" in message  # there is no program to retarget
    assert set(stages.seconds) == {"open the checkpoint", "check the checkpoint's values"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c"]


def test_an_int4_embedding_is_exported_for_a_mali(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "c", embedding="int4", n_layers=1)
    options = ExportOptions(target=choose_for_target("mali-g610", "1.3"), scheme="weight-only")
    export_checkpoint(checkpoint, tmp_path / "g.pte", options)
    kinds = {operator.kind for operator in open_program(tmp_path / "g.pte").vulkan.operators}
    assert "et_vk.embedding_q4gsw" in kinds


def test_a_target_is_for_the_vulkan_backend(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "c")
    asked = ["export", checkpoint, "-o", "g.pte", "--target", "mali-g715", "--backend", "xnnpack"]
    done = invoked(asked)
    assert "--target mali-g715 is a GPU, for the Vulkan backend" in str(done.exception)
    assert done.output == ""  # no reasons for a choice that nobody gets


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="no profile of a device"):
        choose_for_target("mali-t604")
    with pytest.raises(InputError, match="no ExecuTorch version"):
        choose_for_target("mali-g715", "latest")
