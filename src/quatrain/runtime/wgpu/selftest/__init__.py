"""Every kernel against float64 on the CPU: `quatrain selftest`, and tests/kernels."""

from collections.abc import Iterator
from itertools import chain

from quatrain.runtime.wgpu.selftest.attention_cases import attention_cases
from quatrain.runtime.wgpu.selftest.bench import TOLERANCE, Case, run_case
from quatrain.runtime.wgpu.selftest.linear_cases import linear_cases
from quatrain.runtime.wgpu.selftest.pointwise_cases import pointwise_cases

__all__ = ["TOLERANCE", "Case", "all_cases", "run_case"]


def all_cases(dtype: str) -> Iterator[Case]:
    """All cases for the storage type `dtype`: f32 or f16."""
    return chain(linear_cases(dtype), attention_cases(dtype), pointwise_cases(dtype))
