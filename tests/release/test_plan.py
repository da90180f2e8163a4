"""Which file goes to which phone."""

from pathlib import Path

import pytest
from tests.support.models.tiny_checkpoint import write_checkpoint

from quatrain.errors import InputError
from quatrain.release.plan import ReleasePlan, plan_release
from quatrain.release.spec import ReleaseSpec


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("plan") / "checkpoint")


def _plan(checkpoint: Path, *phones: str, **asked) -> ReleasePlan:
    return plan_release(checkpoint, "m", ReleaseSpec(phones=phones, **asked))


def test_without_phones_there_is_the_cpus(checkpoint: Path) -> None:
    assert [one.file for one in _plan(checkpoint).files] == ["m-cpu.pte"]
    assert [one.file for one in _plan(checkpoint, cpu=False).files] == ["m-cpu.pte"]
    only = _plan(checkpoint, "pixel-8", cpu=False, runtime="1.5")
    assert [one.options.backend for one in only.files] == ["vulkan"]
    assert (only.quantized_for, _plan(checkpoint, "pixel-8").quantized_for) == ("vulkan", "any")


def test_where_there_can_be_none_for_the_cpu_it_says_who_needs_one(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "short", max_seq_len=2)
    why = "no program for the CPU can be made: the model's context is 2 .* trained for"
    with pytest.raises(InputError, match=f"{why}$"):
        _plan(checkpoint)
    with pytest.raises(InputError, match=f"{why}; or leave out pixel-8, which needs it$"):
        _plan(checkpoint, "pixel-8", cpu=False)


def test_a_phone_sold_with_either_chip_is_both(checkpoint: Path) -> None:
    plan = _plan(checkpoint, "galaxy-s24", runtime="1.5")
    assert [one.id for one in plan.phones] == ["galaxy-s24-exynos", "galaxy-s24-snapdragon"]
    twice = _plan(checkpoint, "galaxy-s24", "Galaxy-S24-Exynos", "galaxy-s24", runtime="1.5")
    assert twice.phones == plan.phones
    with pytest.raises(InputError, match="device 'pixel-8 pixel-7'; several have commas between"):
        _plan(checkpoint, "pixel-8 pixel-7")
    with pytest.raises(InputError, match=r"device 'galaxy-s99'; most like it are galaxy-s"):
        _plan(checkpoint, "galaxy-s99")


def test_what_is_alike_is_one_file_and_limits_tell_files_apart(checkpoint: Path) -> None:
    plan = _plan(checkpoint, "pixel-8", "pixel-8-pro", "mali-g715", runtime="1.5", cpu=False)
    assert len(plan.files) == 1 and len({one.file for one in plan.phones}) == 1
    plan = _plan(checkpoint, "mali-g720", "adreno-6xx", scheme="weight-only", cpu=False)
    assert len(plan.files) == len({one.file for one in plan.files}) == 2


def test_without_dot_products_8da4w_is_computed_as_there(checkpoint: Path) -> None:
    plan = _plan(checkpoint, "mali-g76", "mali-g720", runtime="1.5", scheme="8da4w", cpu=False)
    (file,) = plan.files
    assert plan.as_on(file) == ["mali-g76", None]
    weight_only = _plan(checkpoint, "mali-g76", runtime="1.5", scheme="weight-only", cpu=False)
    assert weight_only.as_on(weight_only.files[0]) == [None]


def test_where_a_defect_applies_a_phone_gets_the_cpus(checkpoint: Path) -> None:
    plan = _plan(checkpoint, "pixel-8", "pixel-8-pro", runtime="1.5")
    moved = plan.on_cpu({"pixel-8": "the CPU's program: why"})
    assert [one.file for one in moved.phones] == ["m-cpu.pte", "m-8da4w-fp16.pte"]
    assert moved.phones[0].reasons == [moved.phones[0].why] == ["the CPU's program: why"]
    both = plan.on_cpu({one.id: "why" for one in plan.phones})
    assert [one.file for one in both.files] == ["m-cpu.pte"]
    without = _plan(checkpoint, "pixel-8", runtime="1.5", cpu=False)
    assert without.on_cpu({"pixel-8": "why"}) == without


def test_files_that_turn_out_alike_are_one(checkpoint: Path) -> None:
    plan = _plan(checkpoint, "mali-g720", "adreno-6xx", scheme="weight-only", cpu=False)
    first, second = (one.file for one in plan.files)
    shared = plan.shared({first: first, second: first})
    assert [one.file for one in shared.files] == [one.file for one in shared.phones[:1]] == [first]
    assert {one.file for one in shared.phones} == {first}
