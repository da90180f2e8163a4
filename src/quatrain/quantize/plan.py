"""What becomes of each tensor of a model, decided before any of them is read."""

from dataclasses import dataclass
from typing import Any, Literal

import torch

from quatrain.checkpoint import FloatModel
from quatrain.checkpoint.files.safetensors import TensorSpec
from quatrain.checkpoint.layout import EMBEDDING, OUTPUT, linear_shapes, vector_shapes
from quatrain.errors import InputError
from quatrain.int4 import GROUP_SIZES, Scheme
from quatrain.quantize.methods.q4_0 import GROUP_SIZE as Q4_0_GROUP_SIZE

Method = Literal["int4", "int8", "fp"]
EmbeddingFormat = Literal["keep", "int4", "int8", "fp"]


@dataclass(frozen=True)
class TensorPlan:
    """One tensor to write: `method` applied to the model's `source`, stored under `target`.

    `kind` groups steps for progress and for the error figures. `shape` is [N, K], [experts, N, K]
    for the linears of a mixture of experts, or [N] for a norm or a bias.
    """

    kind: Literal["embedding", "layers", "output"]
    source: str
    target: str
    method: Method
    shape: tuple[int, ...]

    def specs(self, group_size: int) -> list[TensorSpec]:
        """The tensors it writes: integers, then their scales."""
        if self.method == "fp":
            return [TensorSpec(self.target, torch.float32, self.shape)]
        *rows, columns = self.shape
        scales = (*rows, columns // group_size) if self.method == "int4" else tuple(rows)
        return [
            TensorSpec(self.target, torch.int8, self.shape),
            TensorSpec(f"{self.target.removesuffix('weight')}scales", torch.float32, scales),
        ]


def plan(
    model: FloatModel, group_size: int, embedding: EmbeddingFormat, output_layer: EmbeddingFormat
) -> tuple[list[TensorPlan], dict[str, Any]]:
    """(the steps in the order they are written: embedding, layers, output; the quantization_args
    that say so).

    'keep' is int4 for the output layer. For the embedding it is int4 where the file holds it as
    int4 in such groups already, and int8 elsewhere. An output layer that is tied to the embedding
    gets integers of its own. Raises `InputError` where the group size is unknown or does not divide
    a tensor's input features.
    """
    config, tensors = model.config, model.tensors
    if group_size not in GROUP_SIZES:
        raise InputError(
            f"group size {group_size} is not supported, expected one of "
            f"{', '.join(map(str, GROUP_SIZES))}"
        )
    embedding_name, output_name = f"{EMBEDDING}.weight", f"{OUTPUT}.weight"
    output_source = output_name if output_name in tensors else embedding_name
    if embedding == "keep":
        int4 = embedding_name in model.int4_blocks and group_size == Q4_0_GROUP_SIZE
        embedding = "int4" if int4 else "int8"
    if output_layer == "keep":
        output_layer = "int4"
    plans = [
        *(
            TensorPlan("layers", f"{name}.weight", f"{name}.weight", "int4", shape)
            for name, shape in linear_shapes(config).items()
        ),
        *(
            TensorPlan("layers", name, name, "fp", shape)
            for name, shape in vector_shapes(config).items()
        ),
    ]
    if embedding_name in tensors and config.apply_embedding:
        shape = tensors.stored[embedding_name].shape
        plans.insert(0, TensorPlan("embedding", embedding_name, embedding_name, embedding, shape))
    if output_source in tensors and config.apply_output:
        shape = tensors.stored[output_source].shape
        plans.append(TensorPlan("output", output_source, output_name, output_layer, shape))
    for tensor_plan in plans:
        if tensor_plan.method == "int4" and tensor_plan.shape[-1] % group_size:
            fitting = [str(size) for size in GROUP_SIZES if tensor_plan.shape[-1] % size == 0]
            raise InputError(
                f"{tensor_plan.source} has {tensor_plan.shape[-1]} input features, not a multiple "
                f"of the group size {group_size}; group sizes that divide it: "
                f"{', '.join(fitting) or 'none'}"
            )
    return plans, {
        "scheme": Scheme.DYNAMIC_INT8,
        "group_size": group_size,
        "embedding": embedding,
        "output": output_layer,
    }
