"""What a case of the self-test is, and how one is run.

A case makes operands, the dispatches under test and the result that float64 expects. Outputs
are filled with NaN before each run, so that an element that no lane writes cannot pass.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from quatrain.runtime.wgpu.device import Gpu, explained
from quatrain.runtime.wgpu.dispatches.dispatch import NUMPY, Dispatch, Operand, Traits
from quatrain.runtime.wgpu.sequence import Sequence

# Largest normalized squared error that passes, by storage type.
TOLERANCE = {"f32": 1e-6, "f16": 1e-4}
_POISON = 0xFF  # four or two such bytes are a NaN


# Dispatches, and what each of the operands that they write must hold.
Made = tuple[list[Dispatch], dict[str, np.ndarray]]


@dataclass
class Bench:
    """The operands of one case, stored in the case's `dtype` unless another is given: `put` gives
    one its data, `out` makes one to be written."""

    dtype: str
    rng: np.random.Generator
    traits: Traits
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    operands: dict[str, Operand] = field(default_factory=dict)

    def put(self, name: str, data: Any, dtype: str = "") -> Operand:
        """An operand holding `data`, rounded to its type."""
        self.arrays[name] = np.ascontiguousarray(data, dtype=NUMPY[dtype or self.dtype])
        return self.out(name, *self.arrays[name].shape, dtype=dtype)

    def normal(self, name: str, *shape: int, dtype: str = "") -> Operand:
        """An operand of normally distributed numbers."""
        return self.put(name, self.rng.standard_normal(shape), dtype)

    def out(self, name: str, *shape: int, dtype: str = "") -> Operand:
        """An operand to be written."""
        self.operands[name] = Operand((name,), dtype or self.dtype, shape)
        return self.operands[name]

    def __getitem__(self, name: str) -> np.ndarray:
        """What the operand `name` holds, in float64 (integers in int64)."""
        array = self.arrays[name]
        return array.astype(np.float64 if array.dtype.kind == "f" else np.int64)


@dataclass(frozen=True)
class Case:
    """One kernel at one shape: `make` gives its dispatches and what each output must hold."""

    kernel: str
    shape: str
    dtype: str
    make: Callable[[Bench], Made]

    def __str__(self) -> str:
        return f"{self.kernel}-{self.dtype}-{self.shape}"


def run_case(gpu: Gpu, case: Case) -> float:
    """The largest normalized squared error among the case's outputs (infinite if NaN)."""
    bench = Bench(case.dtype, np.random.default_rng(len(case.shape)), gpu.traits)
    dispatches, expected = case.make(bench)
    memory = {}
    for name, operand in bench.operands.items():
        content = np.full(operand.nbytes, _POISON, np.uint8)
        if name in bench.arrays:
            raw = bench.arrays[name].reshape(-1).view(np.uint8)
            content[: raw.size] = raw
        memory[operand.key] = gpu.upload(content, f"the operand {name}")
    encoder = gpu.device.create_command_encoder()
    Sequence(gpu, dispatches, memory).encode(encoder, {})
    staging = {name: gpu.staging(bench.operands[name].nbytes) for name in expected}
    for name, buffer in staging.items():
        encoder.copy_buffer_to_buffer(memory[bench.operands[name].key], 0, buffer, 0, buffer.size)
    with explained(f"running the case {case}"):
        gpu.device.queue.submit([encoder.finish()])
    errors = []
    for name, want in expected.items():
        dtype = want.dtype if want.dtype == np.int8 else NUMPY[bench.operands[name].dtype]
        got = gpu.read(staging[name], dtype)
        errors.append(squared_error(got[: want.size].reshape(want.shape), want))
    return max(errors)


def squared_error(got: np.ndarray, want: np.ndarray) -> float:
    """sum (got - want)^2 / sum want^2; infinite if `got` is not finite."""
    got, want = got.astype(np.float64), want.astype(np.float64)
    if not np.isfinite(got).all():
        return float("inf")
    return float(np.square(got - want).sum() / max(np.square(want).sum(), 1e-30))
