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


def arithmetic_of() -> TrainingArithmetic:
    """On a GPU, where torch has one, and on processors that multiply it, bfloat16."""
    if torch.cuda.is_available():
        return TrainingArithmetic(torch.device("cuda"), torch.bfloat16)
    bfloat16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return TrainingArithmetic(torch.device("cpu"), torch.bfloat16 if bfloat16 else torch.float32)


@contextmanager
def fast_matmuls() -> Iterator[None]:
    """Products of float32 through bfloat16, summed in float32, where the processor has them: five
    times as fast, and far more exact than int4."""
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before
