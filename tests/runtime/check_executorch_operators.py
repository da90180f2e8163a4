"""The whole of ExecuTorch's suite of operators on both runtimes: `make operators`.

Each case is right or refused by name; one that is wrong or crashes fails. Lowering takes
20 minutes.
"""

from pathlib import Path

import pytest
from tests.support.comparisons.executorch_operators import generate, outcome, suite

from quatrain.runtime.reference import ReferenceRunner
from quatrain.runtime.wgpu.runner import WgpuRunner


@pytest.mark.parametrize(("operator", "case"), [(op, c) for op, cs in suite().items() for c in cs])
def test_case(operator: str, case: str, tmp_path: Path) -> None:
    for entry in generate(operator, case, tmp_path):
        for name, runtime in {"reference": ReferenceRunner, "gpu": WgpuRunner}.items():
            got = outcome(tmp_path, entry, runtime)
            print(f"{operator} {case}, {name}: {got}")
