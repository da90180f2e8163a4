"""For each defect one program that has it and one that does not."""

from pathlib import Path

import pytest
from tests.support.defects.driver_defects import DRIVER_CASES, dynamic_zero_points, linear, methods
from tests.support.defects.findings import findings
from tests.support.defects.form_defects import FORM_CASES, int4_linear
from tests.support.defects.kernel_defects import KERNEL_CASES, dynamic, embedding
from tests.support.defects.length_forms import LENGTH_CASES, of_any_length
from tests.support.defects.load_checks import (
    LOAD_CHECK_CASES,
    convolution,
    long_attention,
    qcs4w,
)
from tests.support.defects.older_releases import OLDER_CASES, at_position
from tests.support.defects.one_operator import Make
from tests.support.defects.padding_forms import HOW_SURE_OF_PADDING, PADDING_CASES
from tests.support.defects.size_defects import SIZE_CASES

from quatrain.program import open_program
from quatrain.program.vulkan.linear_kernels import group_sums_are_right
from quatrain.targets import examine, fatal_findings, load_defects
from quatrain.targets.triggers.registry import TRIGGERS

CASES = [
    *DRIVER_CASES, *FORM_CASES, *KERNEL_CASES, *LENGTH_CASES, *LOAD_CHECK_CASES, *OLDER_CASES,
    *PADDING_CASES, *SIZE_CASES,
]  # fmt: skip


@pytest.mark.parametrize(("defect", "gpu", "runtime", "has", "lacks"), CASES)
def test_each_defect_is_found_where_it_is(
    defect: str,
    gpu: str,
    runtime: str | None,
    has: Make,
    lacks: Make,
    tmp_path: Path,
) -> None:
    found = findings(has(tmp_path), gpu, runtime)
    assert defect in found, list(found)
    assert found[defect].occurrences and found[defect].remedy and found[defect].source
    assert defect not in findings(lacks(tmp_path), gpu, runtime)


def test_every_defect_has_a_case_and_a_trigger() -> None:
    assert {defect.id for defect in load_defects()} == {case[0] for case in CASES}
    assert {defect.trigger for defect in load_defects()} == set(TRIGGERS)


HALF_LINEAR = linear("aten.linear.default", "float16", "float16")
# What fails a check where it is certain alone: defect, GPU, runtime, program, how sure it is.
HOW_SURE: list[tuple[str, str, str | None, Make, str]] = [
    ("adreno-convolution", "adreno-8xx", "1.5", convolution(168), "certain"),
    ("adreno-convolution", "adreno-8xx", "1.5", convolution(192), "certain"),
    ("adreno-convolution", "adreno-8xx", "1.5", convolution(193), "possible"),
    ("caches-per-method", "llvmpipe", "1.5", methods("prefill", "decode"), "certain"),
    ("caches-per-method", "llvmpipe", "1.5", methods("prefill_forward", "kv_forward"), "certain"),
    ("caches-per-method", "llvmpipe", "1.5", methods("prefill", "forward"), "conditional"),
    ("caches-per-method", "llvmpipe", "1.5", methods("forward", "kv_forward"), "conditional"),
    ("caches-per-method", "llvmpipe", "1.5", methods("forward", "encode"), "possible"),
    ("embedding-channels-packed", "desktop", "1.0", embedding("width_packed"), "certain"),
    ("embedding-channels-packed", "desktop", None, embedding("width_packed"), "possible"),
    ("no-16bit-storage", "no-16bit", "1.2", HALF_LINEAR, "certain"),
    ("no-16bit-storage", "xclipse", "1.2", HALF_LINEAR, "possible"),
    ("qcs4w-missing-shader", "desktop", "1.5", qcs4w, "certain"),
    ("qcs4w-missing-shader", "desktop", "1.5", int4_linear(64, 32), "possible"),
    ("sdpa-uneven-calls", "desktop", "1.4", at_position(0, 1), "certain"),
    ("sdpa-uneven-calls", "desktop", "1.4", of_any_length(at_position(0, 5)), "conditional"),
    ("sdpa-attention-weights", "llvmpipe", "1.5", long_attention(2052), "conditional"),
    ("sdpa-attention-weights", "xclipse", "1.5", long_attention(2052), "possible"),
    *HOW_SURE_OF_PADDING,
]


@pytest.mark.parametrize(("defect", "gpu", "runtime", "make", "certainty"), HOW_SURE)
def test_how_sure_a_defect_is_hangs_on_where_it_is_met(
    defect: str, gpu: str, runtime: str | None, make: Make, certainty: str, tmp_path: Path
) -> None:
    assert findings(make(tmp_path), gpu, runtime)[defect].certainty == certainty


FIXED = {defect.id: defect.fixed_in for defect in load_defects() if defect.fixed_in}


@pytest.mark.parametrize("case", [case for case in CASES if case[0] in FIXED], ids=lambda c: c[0])
def test_a_fixed_runtime_is_not_blamed(
    case: tuple[str, str, str | None, Make, Make], tmp_path: Path
) -> None:
    defect, gpu, _, has, _ = case
    sick = has(tmp_path)
    assert defect not in findings(sick, gpu, FIXED[defect])
    assert defect in findings(sick, gpu, None)


def test_only_the_gpus_concerned_are_blamed(tmp_path: Path) -> None:
    sick = dynamic_zero_points("float32")(tmp_path)
    assert "dq8ca-zp-binding-float" not in findings(sick, "adreno-8xx", "1.3")
    suspected = findings(sick, "mali-g720", "1.3")["dq8ca-zp-binding-float"]
    assert suspected.certainty == "possible" and not suspected.applies
    everywhere = [f for f in examine(open_program(sick), None, "1.3") if f.defect.endswith("float")]
    assert [(f.certainty, f.gpus) for f in everywhere] == [
        ("certain", ["mali-g610", "mali-g710", "mali-g715"]),
        ("possible", ["mali-g720"]),
    ]


def test_a_kernel_that_needs_dot_products_spares_gpus_without(tmp_path: Path) -> None:
    sick = dynamic(group_size=256)(tmp_path)
    assert "dq8ca-group-sums" not in findings(sick, "mali-g76", "1.5")
    assert [finding.defect for finding in fatal_findings(open_program(sick))] == [
        "dq8ca-group-sums"
    ]


SIZES = {32: True, 64: True, 65: False, 127: False, 128: True, 129: False, 256: False, 512: False}


@pytest.mark.parametrize("size", SIZES)
def test_groups_are_summed_rightly_or_not_by_their_size(size: int, tmp_path: Path) -> None:
    """Of two rows or more, in every release, and in a program of that group: 65, 127 and 129 do
    not divide its inputs."""
    assert group_sums_are_right(size) is SIZES[size]
    if size in (32, 64, 128, 256):
        found = findings(dynamic(group_size=size)(tmp_path), "desktop", "1.5")
        assert ("dq8ca-group-sums" in found) is not SIZES[size]
