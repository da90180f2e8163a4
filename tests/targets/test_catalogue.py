"""What is written of GPUs, defects and releases: sourced, consistent, and what the page says."""

from pathlib import Path

from tests.support.defects.kernel_defects import measured
from tests.support.paths import DOCS, ROOT

from quatrain.program import open_program
from quatrain.runtime.defects import EmulatedDefect
from quatrain.targets import load_defects, load_gpus
from quatrain.targets.catalogue import load_toml
from quatrain.targets.runtimes import known_releases, unknown_operators


def test_every_figure_has_its_source() -> None:
    names = (
        "vulkan", "fp16", "storage_16bit", "int8_dot_product", "subgroup_size",
        "max_storage_buffer", "max_image_2d", "max_image_3d",
    )  # fmt: skip
    for gpu in load_gpus():
        known = {name for name in names if getattr(gpu, name) is not None}
        assert known == set(gpu.sources), gpu.id


def test_every_emulated_defect_is_a_known_one() -> None:
    assert set(EmulatedDefect) < {defect.id for defect in load_defects()}


def test_no_defect_is_of_releases_without_its_operators() -> None:
    registered: dict[str, list[str]] = {}
    for operator in load_toml("runtimes.toml")["operators"]:
        kind = operator["name"].rpartition(".")[0]  # of all its overloads
        registered.setdefault(kind, []).append(operator["since"])
    # Its trigger looks for a linear of the first release too.
    others = [defect for defect in load_defects() if defect.id != "static-int8-no-resize"]
    for defect in others:
        found = [since for name in defect.operators for since in registered.get(name, ())]
        assert not found or (defect.since or "1.0") >= min(found), defect.id


def test_every_limit_that_names_a_defect_names_a_known_one() -> None:
    limits = load_toml("runtimes.toml")["limit"]
    known = {defect.id for defect in load_defects()}
    assert {limit["defect"] for limit in limits if "defect" in limit} <= known
    assert all(limit["since"] in known_releases() and limit["source"] for limit in limits)
    unlooked = {limit["id"] for limit in limits if "defect" not in limit}
    # What a release does with any program, or with a damaged one, which is refused as it is opened.
    assert unlooked == {"dq8ca-sums-workers", "delegate-arity", "flatbuffer-verified"}


def test_the_page_on_devices_says_which_release_runs_what_and_names_every_defect() -> None:
    page = (DOCS / "devices.md").read_text(encoding="utf-8")
    graph = open_program(measured("llama_d")(Path())).vulkan
    for version in known_releases():
        knows = not unknown_operators(graph, version)
        says = "yes" if knows else "with `export" if version == "1.2" else "no"
        assert f"| {version} | {says}" in page
    for defect in load_defects():
        assert f"| {defect.id} |" in page
    count = f"{len(load_defects())} defects"
    assert count in page and count in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
