"""The options for a checkpoint: how its tables are stored, and how weights are rounded.

"keep": as in the source, or the default (see `plan_model`).
"""

from typing import Literal, get_args

from quatrain.errors import require_one_of
from quatrain.int4 import GROUP_SIZES, XNNPACK_GROUP_SIZES

EmbeddingFormat = Literal["keep", "int8", "int4", "fp"]
OutputFormat = Literal["keep", "int8", "int4"]
Rounding = Literal["gptq", "distill", "rtn"]
# vulkan: scales may be negative and groups be of 16, neither of which XNNPACK takes
ForBackend = Literal["any", "vulkan"]


def group_sizes_for(backend: ForBackend) -> tuple[int, ...]:
    """Those that all kernels of `backend` take, the smallest first."""
    return GROUP_SIZES if backend == "vulkan" else XNNPACK_GROUP_SIZES


def check_formats(
    embedding: EmbeddingFormat,
    output_layer: OutputFormat,
    method: Rounding | None = None,
    backend: ForBackend = "any",
) -> None:
    """Raise `InputError` for one that there is not: a name of no format would be taken for another
    of them."""
    require_one_of("embedding", embedding, get_args(EmbeddingFormat))
    require_one_of("output_layer", output_layer, get_args(OutputFormat))
    require_one_of("method", method, (None, *get_args(Rounding)))
    require_one_of("backend", backend, get_args(ForBackend))
