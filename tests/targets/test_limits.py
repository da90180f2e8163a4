"""Tensors too large for a GPU: found, with the remedy that fits them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.driver_defects import constant_of, huge
from tests.support.findings import findings

from quatrain.program import Tensor
from quatrain.targets.limits import image_extents

Make = Callable[[Path], Path]


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


def test_image_extents() -> None:
    shape = (2, 8, 6, 10)
    assert image_extents(Tensor("float32", shape, layout="width_packed")) == (3, 6, 16)
    assert image_extents(Tensor("float32", shape, layout="height_packed")) == (10, 2, 16)
    assert image_extents(Tensor("float32", shape, layout="channels_packed")) == (10, 6, 4)
