"""Which release of the runtime knows a program's operators."""

import re
from pathlib import Path

import pytest
from tests.support.defects.kernel_defects import measured
from tests.support.programs import artifact

from quatrain.errors import InputError
from quatrain.program import open_program
from quatrain.targets import examine, examine_file
from quatrain.targets.as_on import arithmetic_as_on
from quatrain.targets.runtimes import known_releases, require_loadable, unknown_operators


def test_operators_that_a_release_does_not_know_are_named() -> None:
    program = open_program(measured("llama_d")(Path()))
    found = {f.defect: f for f in examine(program, None, "1.0")}["unknown-operator"]
    assert found.kind == "does not load" and found.applies and not found.gpus
    said = "; ".join(found.occurrences)
    assert "et_vk.rms_norm.default, which is registered from 1.3 on" in said
    assert "torchao.choose_qparams_affine.default with 11 arguments, expected 10" in said
    know = [one for one in known_releases() if not unknown_operators(program.vulkan, one)]
    assert know == ["1.3", "1.4", "1.5"]


@pytest.mark.parametrize("release", ["1.9", "0.7", "2.0"])
def test_an_unknown_release_is_refused_by_name(release: str) -> None:
    with pytest.raises(InputError, match=f"{release}.*known are 1.0, 1.1, 1.2, 1.3, 1.4, 1.5"):
        examine_file(artifact("peer-8da4w-fp32"), runtime=release)


@pytest.mark.parametrize("version", ["1.4", "1.4.1", "1.3.0", "1.5.1+cpu"])
def test_what_was_published_is_examined(version: str) -> None:
    assert examine_file(artifact("peer-8da4w-fp32"), runtime=version).runtime == version


@pytest.mark.parametrize("version", ["1.4.99", "1.4.2", "1.5.1.post1", "1.4x", "1.4.1.0"])
def test_a_version_that_was_never_published_is_refused_with_those_that_were(version: str) -> None:
    line = version[:3]
    published = f"the releases of {line} are {line}.0, {line}.1, and '{line}' means"
    there = f"was never published.*{published}"
    with pytest.raises(InputError, match=there):
        examine_file(Path("m.pte"), runtime=version)
    with pytest.raises(InputError, match=there):
        require_loadable(version)
    with pytest.raises(InputError, match=there):
        arithmetic_as_on(f"mali-g76@{version}")


@pytest.mark.parametrize("version", ["1.4.0rc1", "1.4rc1", "1.5.0a0+bf64fa1", "1.4.0.dev20260601"])
def test_a_pre_release_is_refused_as_one(version: str) -> None:
    with pytest.raises(InputError, match=f"{re.escape(version)}' is a pre-release.*means what"):
        examine_file(Path("m.pte"), runtime=version)
