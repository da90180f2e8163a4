"""Embeddings in a memory layout that their kernel does not read, and their repair."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.command_line import invoked
from tests.support.paths import REAL_RUNTIME
from tests.support.programs import GraphMaker, artifact

from quatrain.errors import InputError
from quatrain.program import Program, Tensor, open_program, write_program
from quatrain.program.edit.embedding_layout import misread_embeddings, repair_program
from quatrain.runtime.reference import ReferenceRunner

REAL = REAL_RUNTIME / "voc20k_w16.pte"


def height_packed(path: Path) -> Path:
    """A program that adds an embedding [1, 6, 8], height-packed, to itself."""
    maker = GraphMaker()
    texture = {"storage": "texture3d", "layout": "height_packed"}
    table = maker.constant(np.arange(10 * 8, dtype=np.float32).reshape(10, 8))
    tokens = maker.tensor("int64", 1, 6, **texture)
    maker.graph.inputs.append(tokens)
    maker.input("int64", 1)
    null, no = maker.plain("null"), maker.plain("bool", False)
    embedded = maker.tensor("float32", 1, 6, 8, **texture)
    maker.call("aten.embedding.default", table, tokens, null, no, no, embedded)
    total = maker.tensor("float32", 1, 6, 8, **texture)
    one = maker.plain("int", 1)
    maker.call("aten.add.Tensor", embedded, embedded, one, total)
    return maker.save(path, [total])


def layouts(program: Program) -> list[tuple[str, str]]:
    """The layouts of indices and result of each embedding."""
    graph = program.vulkan
    return [
        tuple(graph.tensor(op.named_args[name]).layout for name in ("indices", "out"))
        for op in graph.operators
        if op.kind == "aten.embedding"
    ]


def logits(path: Path, emulate: str | None = None) -> torch.Tensor:
    runner = ReferenceRunner(path, emulate=emulate)
    return runner.forward(torch.tensor([[3, 1, 4, 1, 5, 9]]), torch.tensor([0]))


def digests(program: Program) -> dict[str, str]:
    return {key: hashlib.sha256(program.named_bytes(key)).hexdigest() for key in program.named_data}


def programs() -> list:
    missing = pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL.name} is not here")
    return ["made", pytest.param("real", marks=missing)]


@pytest.fixture
def broken(request, tmp_path) -> Path:
    if request.param == "made":
        return height_packed(tmp_path / "broken.pte")
    return Path(shutil.copy(REAL, tmp_path / "broken.pte"))


@pytest.mark.parametrize("broken", programs(), indirect=True)
def test_repair_changes_layouts_and_nothing_else(broken, tmp_path) -> None:
    fixed = tmp_path / "fixed.pte"
    done = invoked(["retarget", broken, "--repair", "-o", fixed])
    assert done.exit_code == 0, done.exception
    assert "1 embedding repaired" in done.output
    before, after = open_program(broken), open_program(fixed)
    assert layouts(before) == [("height_packed", "height_packed")]
    assert layouts(after) == [("width_packed", "width_packed")]
    assert not torch.equal(logits(broken), logits(broken, "embedding-height-packed"))
    assert torch.equal(logits(broken), logits(fixed, "embedding-height-packed"))
    assert digests(before) == digests(after)
    assert before.metadata == after.metadata
    # But for a copy for readers that expect the old layout, only two tensors changed.
    changed = [
        (old, new)
        for old, new in zip(before.vulkan.values, after.vulkan.values, strict=False)
        if old != new
    ]
    assert len(changed) == 2
    assert all(isinstance(old, Tensor) and isinstance(new, Tensor) for old, new in changed)


@pytest.mark.parametrize("broken", programs(), indirect=True)
def test_a_program_with_nothing_to_repair_is_refused(broken, tmp_path) -> None:
    fixed, again = tmp_path / "fixed.pte", tmp_path / "again.pte"
    invoked(["retarget", broken, "--repair", "-o", fixed])
    error = invoked(["retarget", fixed, "--repair", "-o", again]).exception
    assert isinstance(error, InputError)
    assert "nothing to repair" in str(error)
    assert not again.exists()


def test_repair_goes_with_a_scheme_and_with_slim(tmp_path) -> None:
    program = open_program(artifact("peer-8da4w-fp32"))
    graph = program.vulkan
    operator = next(op for op in graph.operators if op.kind == "aten.embedding")
    for name in ("indices", "out"):
        value = operator.named_args[name]
        tensor = graph.tensor(value)
        graph.values[value] = replace(tensor, storage="texture3d", layout="height_packed")
    broken, fixed = tmp_path / "broken.pte", tmp_path / "fixed.pte"
    write_program(program, broken)
    options = ("--repair", "--linear-scheme", "weight-only", "--slim", "--json")
    found = json.loads(invoked(["retarget", broken, *options, "-o", fixed]).stdout)
    assert found["repaired_embeddings"] == 1
    assert len(found["changed"]) == 15
    assert misread_embeddings(open_program(fixed).vulkan) == []
    without = json.loads(
        invoked(["retarget", broken, "--slim", "--json", "-o", tmp_path / "slim.pte"]).stdout
    )
    assert without["repaired_embeddings"] == 0
    assert repair_program(open_program(tmp_path / "slim.pte")) == 1
    assert (
        "nothing removed"
        in invoked(["retarget", fixed, "--slim", "-o", tmp_path / "again.pte"]).output
    )
