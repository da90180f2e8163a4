"""What a checkpoint may be asked to be: how its tables are stored, and how weights are rounded.

"keep": as the source has it, or what is usual (see `plan_model`).
"""

from typing import Literal

EmbeddingFormat = Literal["keep", "int8", "int4", "fp"]
OutputFormat = Literal["keep", "int8", "int4"]
Rounding = Literal["gptq", "distill", "rtn"]
ForBackend = Literal["any", "vulkan"]  # vulkan: scales may be negative, which XNNPACK does not take
