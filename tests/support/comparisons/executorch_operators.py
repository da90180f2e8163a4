"""ExecuTorch's own suite of operators, lowered by its Vulkan partitioner, with float64 results."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quatrain.arithmetic import XNNPACK_ARITHMETIC
from quatrain.errors import QuatrainError
from quatrain.program import open_program
from quatrain.runtime.one_delegate import method_outputs

_STORED = {"float32": "<f4", "int32": "<i4", "int64": "<i8", "bool": "<i1", "int8": "<i1"}


def suite() -> dict[str, list[str]]:
    """The operators of the suite and the names of each one's cases."""
    return {
        operator: [case.name for case in each.cases if not case.heavy]
        for operator, each in _registry().items()
    }


def generate(operator: str, name: str, folder: Path) -> list[dict[str, Any]]:
    """Lower one case into `folder`; an entry of the suite's manifest per output.

    Takes seconds.
    """
    from executorch.backends.webgpu.test.op_tests.generate_op_tests import generate_case

    each = _registry()[operator]
    case = next(case for case in each.cases if case.name == name)
    entries = generate_case(operator, each, case, str(folder))
    (folder / "manifest.json").write_text(json.dumps(entries))
    return entries


def outcome(folder: Path, entry: dict[str, Any], runtime: Callable[..., Any]) -> str:
    """What `runtime` makes of one output of a case: "right", or why it refuses the program.

    8da4w linears quantize every row, as the suite's do, where a phone's Vulkan leaves a single one.
    Raises `AssertionError` for a wrong result, within the suite's own tolerances.
    """
    path, index = folder / entry["pte"], entry["golden"]["output_index"]
    inputs = [_stored(folder, each) for each in entry["inputs"]]
    seen: dict[int, torch.Tensor] = {}
    try:
        runner = runtime(path, arithmetic=XNNPACK_ARITHMETIC)
        output = method_outputs(open_program(path))[index]
        first = runner.trace({output}, seen.setdefault, *inputs)
    except QuatrainError as error:
        return str(error)
    want = _stored(folder, entry["golden"])
    got = first if index == 0 else seen[output]
    assert got.shape == want.shape
    assert torch.allclose(
        got.double(), want.double(), rtol=entry["rtol"], atol=entry["atol"], equal_nan=True
    )
    return "right"


@cache
def _registry() -> dict[str, Any]:
    from executorch.backends.vulkan.patterns import fusable_patterns
    from executorch.backends.webgpu.test.op_tests import cases  # noqa: F401  registers them
    from executorch.backends.webgpu.test.op_tests.test_suite import op_test_registry

    # The examples of rotary embeddings that every lowering looks for take it seconds to compile.
    for pattern in fusable_patterns.values():
        if pattern.get_graphs_fn is not None:
            pattern.get_graphs_fn = cache(pattern.get_graphs_fn)
    return op_test_registry


def _stored(folder: Path, entry: dict[str, Any]) -> torch.Tensor:
    flat = np.fromfile(folder / entry["path"], _STORED[entry["dtype"]])
    tensor = torch.from_numpy(flat.reshape(entry["shape"]))
    return tensor.bool() if entry["dtype"] == "bool" else tensor
