"""A constant in another's place is told, although the program holds both."""

import shutil
from pathlib import Path

import pytest
from tests.support.tiny_programs import Tiny
from tests.support.verified import Tensors, wrong_beside


@pytest.mark.parametrize("backend", ["vulkan", "xnnpack"])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("layers.1.attention_norm", "layers.1.ffn_norm"),
        ("layers.0.attention.wo", "layers.1.attention.wo"),
    ],
)
def test_two_that_are_exchanged_are_told(
    backend: str, one: str, other: str, tiny: Tiny, tiny_xnnpack: Path, tmp_path: Path
) -> None:
    """By the one that is read where the earlier one should be."""

    def exchange(tensors: Tensors) -> None:
        for name in [name for name in tensors if name.startswith(one)]:
            there = name.replace(one, other)
            tensors[name], tensors[there] = tensors[there], tensors[name]

    source = tiny_xnnpack if backend == "xnnpack" else tiny.programs["weight-only"]
    program = Path(shutil.copy(source, tmp_path))
    (wrong,) = wrong_beside(program, tiny.checkpoint, exchange)
    assert wrong.removesuffix(".weight") == other
