"""Damaged programs: an error that says so, never a crash, a hang or gigabytes.

`QUATRAIN_FUZZ=50000 pytest -s tests/program/test_fuzz.py` runs longer than the default and
says how far it is.
"""

import os
import random
import shutil
import signal
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.programs import ARTIFACTS, VULKAN, artifact

from quatrain.arithmetic import VULKAN_ARITHMETIC
from quatrain.errors import InputError
from quatrain.program import Tensor, VulkanGraph, open_program, write_program
from quatrain.program.edit.retarget import retarget
from quatrain.program.edit.slim import slim
from quatrain.program.inspect.html import render_page
from quatrain.program.inspect.report import inspect_program
from quatrain.program.vulkan.memory import memory_conflicts
from quatrain.runtime.reference import ReferenceRunner
from quatrain.runtime.wgpu.dispatches.dispatch import Traits
from quatrain.runtime.wgpu.fuse import fuse
from quatrain.runtime.wgpu.lower import lower, unsupported
from quatrain.runtime.wgpu.sequence import resolve
from quatrain.stages import peak_rss_bytes
from quatrain.targets.doctor import examine

MUTATIONS = int(os.environ.get("QUATRAIN_FUZZ", "60"))
SLOWEST = 5.0  # seconds of processor that one file may take
ODD_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFF0)


def mutate(data: bytes, blob: tuple[int, int], rng: random.Random) -> bytes:
    """`data` with a few things wrong in its FlatBuffers, or cut short."""
    changed = bytearray(data)
    start, size = blob if rng.random() < 0.6 else (0, 9216)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        at = start + rng.randrange(min(size, len(changed) - start))
        kind = rng.randrange(5)
        if kind == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[at] = rng.randrange(256)
        elif kind == 2:
            at -= at % 4
            changed[at : at + 4] = rng.choice(ODD_NUMBERS).to_bytes(4, "little")
        elif kind == 3:
            length = rng.randrange(1, 64)
            source = start + rng.randrange(min(size, len(changed) - start))
            changed[at : at + length] = changed[source : source + length]
        else:
            at -= at % 4
            number = int.from_bytes(changed[at : at + 4], "little") + rng.randrange(-16, 17)
            changed[at : at + 4] = (number % 2**32).to_bytes(4, "little")
    if rng.random() < 0.05:
        del changed[rng.randrange(len(changed)) :]
    return bytes(changed)


def rewire(source: Path, output: Path, rng: random.Random) -> None:
    """Write `source` with a few operators and values exchanged: well-formed, but nonsense."""
    program = open_program(source)
    graph = program.vulkan
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(graph.operators))
        operator = graph.operators[place]
        kind = rng.randrange(6)
        if kind == 0:
            args = list(operator.args)
            args[rng.randrange(len(args))] = rng.randrange(len(graph.values))
            graph.operators[place] = replace(operator, args=tuple(args))
        elif kind == 1:
            graph.operators[place] = replace(operator, name=rng.choice(graph.operators).name)
        elif kind == 2:
            del graph.operators[place]
        elif kind == 3:
            graph.operators.insert(rng.randrange(len(graph.operators)), operator)
        elif kind == 4:
            value_id = rng.randrange(len(graph.values))
            graph.values[value_id] = rng.choice(graph.values)
        else:
            tensors = [i for i, v in enumerate(graph.values) if isinstance(v, Tensor)]
            value_id = rng.choice(tensors)
            shape = list(graph.tensor(value_id).shape)
            shape.insert(rng.randrange(len(shape) + 1), rng.choice((0, 1, 3, 2**20)))
            graph.values[value_id] = replace(graph.tensor(value_id), shape=tuple(shape[-4:]))
    write_program(program, output)


def use(path: Path, output: Path) -> None:
    """Everything that reads a program, writes one or runs one."""
    program = open_program(path)
    inspect_program(program)
    graph = program.vulkan
    memory_conflicts(graph)
    render_page(program)
    examine(program)
    slim(open_program(path))
    retarget(program, "weight-only")
    retarget(program, "8da4w")
    write_program(program, output)
    with suppress(InputError):
        plan_for_gpu(graph)
    runner = ReferenceRunner(path)
    runner.forward(torch.tensor([[1, 2, 3]]), torch.tensor([0]))


def plan_for_gpu(graph: VulkanGraph) -> None:
    """All that the GPU runtime makes of a graph before it needs a GPU."""
    if unsupported(graph):
        return
    inputs = dict(zip(graph.inputs, (np.array([[1, 2, 3]]), np.array([0])), strict=False))
    device = Traits(cpu=True, spread=True)
    lower(graph, graph.operators, inputs, device, False, VULKAN_ARITHMETIC, join=False)
    for dispatch in lower(graph, fuse(graph), inputs, device, False, VULKAN_ARITHMETIC).dispatches:
        dispatch.grid(resolve(dispatch.params, defaultdict(int)))


Sources = list[tuple[bytes, tuple[int, int]]]


def read_sources() -> Sources:
    """Every small program, and where in it its first delegate lies."""
    sources = []
    for name in [*VULKAN, "peer-xnnpack-8da4w"]:
        program = open_program(artifact(name))
        place = program.segment_range(next(iter(program.delegate_segments)))
        sources.append((artifact(name).read_bytes(), place))
    return sources


def damage(path: Path, sources: Sources, rng: random.Random) -> None:
    """Write a damaged program to `path`: two in three at the level of bytes."""
    if rng.random() < 0.33:
        rewire(artifact(rng.choice(VULKAN)), path, rng)
    else:
        path.write_bytes(mutate(*rng.choice(sources), rng))


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Ends what takes longer on the processor, an endless loop as well, with a TimeoutError."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"took more than {seconds} s of processor")

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def test_mutated_programs_are_refused_or_read(tmp_path: Path) -> None:
    rng = random.Random(int(os.environ.get("QUATRAIN_FUZZ_SEED", "0")))
    sources = read_sources()
    before = peak_rss_bytes()
    folder = Path(os.environ.get("QUATRAIN_FUZZ_KEEP", str(tmp_path)))
    refused, kept = 0, []
    for number in range(MUTATIONS):
        path = tmp_path / "mutated.pte"
        damage(path, sources, rng)
        try:
            with at_most(SLOWEST):
                use(path, tmp_path / "output.pte")
        except InputError:
            refused += 1
        except Exception as error:
            kept.append(folder / f"bad-{number}.pte")
            shutil.copyfile(path, kept[-1])
            print(f"{kept[-1].name}: {error!r}", flush=True)
        if (number + 1) % 1000 == 0:
            print(f"{number + 1} mutations, {refused} refused", flush=True)
    assert not kept
    assert peak_rss_bytes() - before < 500e6
    print(f"{MUTATIONS} mutations, {refused} refused")


@pytest.mark.parametrize("name", ["peer-8da4w-fp32", "peer-xnnpack-8da4w"])
def test_truncation_anywhere_is_refused(name: str, tmp_path: Path) -> None:
    data = (ARTIFACTS / f"{name}.pte").read_bytes()
    path = tmp_path / "cut.pte"
    for length in [0, 1, 7, 8, 39, 40, *range(64, len(data) - 1, len(data) // 60), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(InputError):
            program = open_program(path)
            for key in program.named_data:
                program.named_bytes(key)
