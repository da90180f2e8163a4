"""What becomes of each tensor of a source, as data: decided before any of them is read."""

from dataclasses import dataclass
from typing import Any, Literal

import torch

from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.checkpoint.files.safetensors import TensorSpec
from quatrain.checkpoint.float_model import FloatModel

Source = FloatModel | Checkpoint
Part = Literal["embedding", "layers", "output"]
MethodName = Literal["rtn", "gptq", "distill", "int4_blocks", "int8_table", "stored"]


@dataclass(frozen=True)
class TensorPlan:
    """How to quantize the source's tensor `source`: by `method`, a key of `METHODS`.

    `part` groups tensors for progress and for the error figures. `specs`: the written tensors:
    integers and their scales, or the tensor unchanged, or nothing. `group_size`: the number of
    weights that share a scale; None for one scale per row, or without scales. `signed_scales`:
    whether scales of groups may be negative.
    """

    part: Part
    source: str
    method: MethodName
    specs: tuple[TensorSpec, ...]
    group_size: int | None = None
    signed_scales: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, K]; [experts, N, K] for the linears of a mixture of experts; [N] for a vector."""
        return self.specs[0].shape

    @property
    def target(self) -> str:
        """The name of what is written first."""
        return self.specs[0].name


@dataclass(frozen=True)
class Plan:
    """A whole checkpoint: its tensors in the order of the file, and params.json's
    quantization_args, which say how they are stored."""

    tensors: list[TensorPlan]
    quantization_args: dict[str, Any]

    @property
    def group_size(self) -> int:
        """How many weights of a linear share a scale."""
        return self.quantization_args["group_size"]

    @property
    def signed_scales(self) -> bool:
        """Whether any scale may be negative."""
        return any(tensor.signed_scales for tensor in self.tensors)

    @property
    def specs(self) -> list[TensorSpec]:
        """All that is written, in order."""
        return [spec for tensor in self.tensors for spec in tensor.specs]


def integers(
    part: Part,
    names: tuple[str, str],
    shape: tuple[int, ...],
    group_size: int | None,
    method: MethodName = "rtn",
) -> TensorPlan:
    """The plan for int4 in groups, or for int8 by row without a `group_size`.

    `names`: of the source's tensor, and of the integers. `group_size` divides the rows.
    """
    source, target = names
    *rows, columns = shape
    scales = (*rows, columns // group_size) if group_size else tuple(rows)
    specs = (
        TensorSpec(target, torch.int8, shape),
        TensorSpec(f"{target.removesuffix('weight')}scales", torch.float32, scales),
    )
    return TensorPlan(part, source, method, specs, group_size)
