"""Which release of the runtime knows a program's operators."""

from pathlib import Path

import pytest
from tests.support.kernel_defects import measured
from tests.support.programs import artifact

from quatrain.errors import InputError
from quatrain.program import open_program
from quatrain.targets import examine, examine_file
from quatrain.targets.runtimes import releases_that_know


def test_operators_that_a_release_does_not_know_are_named() -> None:
    program = open_program(measured("llama_d")(Path()))
    found = {f.defect: f for f in examine(program, None, "1.0")}["unknown-operator"]
    assert found.kind == "does not load" and found.applies and not found.gpus
    said = "; ".join(found.occurrences)
    assert "et_vk.rms_norm.default, which is registered from 1.3 on" in said
    assert "torchao.choose_qparams_affine.default with 11 arguments, where 10 are read" in said
    assert releases_that_know(program.vulkan) == ["1.3", "1.4", "1.5"]


@pytest.mark.parametrize("release", ["1.9", "0.7", "2.0"])
def test_an_unknown_release_is_refused_by_name(release: str) -> None:
    with pytest.raises(InputError, match=f"{release}.*known are 1.0, 1.1, 1.2, 1.3, 1.4, 1.5"):
        examine_file(artifact("peer-8da4w-fp32"), runtime=release)
