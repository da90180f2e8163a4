"""What to export for a device and a runtime."""

import pytest
from program_support import artifact

from quatrain.devices import choose_for_target, load_devices, require_target
from quatrain.errors import InputError
from quatrain.program import open_program


def test_a_valhall_mali_before_the_fix_gets_weight_only() -> None:
    choice = choose_for_target("mali-g715", "1.3")
    assert choice.scheme == "weight-only"
    assert any("dq8ca-zp-binding-float" in reason for reason in choice.reasons)
    assert choose_for_target("mali-g715", "1.5").scheme == "8da4w"
    assert choose_for_target("mali-g715").scheme == "weight-only"  # any runtime: the worst


def test_the_int4_embedding_is_avoided_where_it_crashes() -> None:
    assert "int4-embedding" in choose_for_target("mali-g610", "1.2").avoid
    assert "int4-embedding" not in choose_for_target("mali-g610", "1.3").avoid
    assert "int4-embedding" not in choose_for_target("adreno-8xx", "1.2").avoid


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


@pytest.mark.parametrize("device", [device.id for device in load_devices()])
@pytest.mark.parametrize("runtime", ["1.2", "1.3", "1.4", "1.5"])
def test_what_is_chosen_passes_the_doctor(device: str, runtime: str) -> None:
    """The peer's programs of the chosen scheme and type meet no certain finding."""
    choice = choose_for_target(device, runtime)
    names = {
        ("weight-only", "fp32"): "peer-weight-only-fp32",
        ("weight-only", "fp16"): "peer-weight-only-fp16",
        ("8da4w", "fp32"): "peer-8da4w-fp32",
        ("8da4w", "fp16"): "peer-8da4w-fp16-emb4",
    }
    program = open_program(artifact(names[choice.scheme, choice.activation_dtype]))
    if "int4-embedding" not in choice.avoid:  # the peer's only 8da4w fp16 program has one
        assert all(finding.certainty != "certain" for finding in require_target(program, choice))


def test_a_program_that_would_fail_is_refused() -> None:
    program = open_program(artifact("peer-8da4w-fp32-emb4"))
    with pytest.raises(InputError, match="embedding-q4-dynamic-oob"):
        require_target(program, choose_for_target("mali-g715", "1.2"))
    require_target(program, choose_for_target("mali-g715", "1.3"))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="no profile of a device"):
        choose_for_target("mali-t604")
    with pytest.raises(InputError, match="no ExecuTorch version"):
        choose_for_target("mali-g715", "latest")
