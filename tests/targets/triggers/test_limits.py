"""Tensors too large for a GPU: found, with the remedy that fits them."""

from pathlib import Path

import pytest
from tests.support.defects.driver_defects import constant_of, huge
from tests.support.defects.findings import findings
from tests.support.defects.one_operator import Make

from quatrain.program import Tensor, open_program
from quatrain.targets import examine, find_gpu
from quatrain.targets.catalogue import load_defects
from quatrain.targets.remedy import OF_RELEASE, remedy_text
from quatrain.targets.triggers.limits import image_extents


def test_an_unknown_limit_is_only_possible(tmp_path: Path) -> None:
    sick = huge(2**26, "buffer")(tmp_path)
    assert findings(sick, "xclipse", "1.5")["buffer-limit"].certainty == "possible"
    assert findings(sick, "llvmpipe", "1.5")["buffer-limit"].certainty == "certain"
    image = huge(4 * 4096 + 1, "texture3d")(tmp_path)
    assert "4097 texels" in findings(image, "llvmpipe", "1.5")["buffer-limit"].occurrences[0]


@pytest.mark.parametrize(
    ("make", "remedy", "not_its"),
    [
        (huge(4 * 4097, "texture3d"), "export again with --target", "quantize"),
        (huge(2**26, "buffer"), "shorter --max-seq-len", "quantize"),
        (constant_of("aten.embedding.default"), "--embedding int4", "--max-seq-len"),
        (constant_of("aten.linear.default"), "--output-layer int4", "--max-seq-len"),
    ],
)
def test_the_remedy_for_a_tensor_too_large_fits_it(
    make: Make, remedy: str, not_its: str, tmp_path: Path
) -> None:
    found = findings(make(tmp_path), "llvmpipe", "1.5")["buffer-limit"]
    assert remedy in found.remedy and not_its not in found.remedy


def test_a_release_names_the_option_as_it_has_it(tmp_path: Path) -> None:
    program = open_program(huge(2**26, "buffer")(tmp_path))
    found = examine(program, [find_gpu("llvmpipe")], "1.5", options=OF_RELEASE)
    (remedy,) = [one.remedy for one in found if one.defect == "buffer-limit"]
    assert remedy == "export again with a shorter max-seq-len in release.toml (--spec)"
    assert remedy_text("{max_seq_len:9}", "m.pte") == "--max-seq-len 9"


def test_a_release_names_how_to_quantize_as_it_has_it(tmp_path: Path) -> None:
    program = open_program(constant_of("aten.embedding.default")(tmp_path))
    found = examine(program, [find_gpu("llvmpipe")], "1.5", options=OF_RELEASE)
    (remedy,) = [one.remedy for one in found if one.defect == "buffer-limit"]
    assert remedy == "quantize with embedding int4 in release.toml (--spec) and export again"


def test_no_remedy_names_an_option_that_a_release_lacks_as_its_own() -> None:
    for defect in load_defects():
        said = remedy_text(defect.remedy, "m.pte", OF_RELEASE)
        bare = said.replace("--activation-dtype fp32 (`quatrain export` alone has it)", "")
        assert "--activation-dtype" not in bare, defect.id
        assert "alone" not in remedy_text(defect.remedy, "m.pte")


def test_image_extents() -> None:
    shape = (2, 8, 6, 10)
    assert image_extents(Tensor("float32", shape, layout="width_packed")) == (3, 6, 16)
    assert image_extents(Tensor("float32", shape, layout="height_packed")) == (10, 2, 16)
    assert image_extents(Tensor("float32", shape, layout="channels_packed")) == (10, 6, 4)
