"""What a training computes in, on the processor that is there."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TrainingArithmetic:
    """`dtype`: of the student's linears but the output layer."""

    device: torch.device
    dtype: torch.dtype


def training_arithmetic() -> TrainingArithmetic:
    """On a GPU, where torch has one, and on processors that multiply it, bfloat16."""
    if torch.cuda.is_available():
        return TrainingArithmetic(torch.device("cuda"), torch.bfloat16)
    there = torch.cpu.get_capabilities()
    bfloat16 = there.get("avx512_bf16") or there.get("amx_bf16")
    return TrainingArithmetic(torch.device("cpu"), torch.bfloat16 if bfloat16 else torch.float32)


@contextmanager
def fast_matmuls() -> Iterator[None]:
    """Products of float32 through bfloat16, or TF32 on a GPU, summed in float32, where there are
    such: five times as fast, and far more exact than int4."""
    processor = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    gpu = torch.backends.cuda.matmul
    before = processor.fp32_precision, gpu.fp32_precision
    processor.fp32_precision, gpu.fp32_precision = "bf16", "tf32"
    try:
        yield
    finally:
        processor.fp32_precision, gpu.fp32_precision = before
