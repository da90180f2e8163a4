"""What becomes of each tensor of a model in floating point."""

import torch

from quatrain.checkpoint.files.safetensors import TensorSpec
from quatrain.checkpoint.float_model import FloatModel
from quatrain.checkpoint.layout import EMBEDDING, OUTPUT, linear_shapes, vector_shapes
from quatrain.errors import InputError
from quatrain.int4 import GROUP_SIZES, Scheme
from quatrain.quantize.methods.q4_0 import GROUP_SIZE as Q4_0_GROUP_SIZE
from quatrain.quantize.plan import Part, Plan, TensorPlan, integers
from quatrain.quantize.tensor_formats import EmbeddingFormat, OutputFormat

_EMBEDDING, _OUTPUT = f"{EMBEDDING}.weight", f"{OUTPUT}.weight"


def plan_model(
    model: FloatModel, group_size: int, embedding: EmbeddingFormat, output_layer: OutputFormat
) -> Plan:
    """The plan for embedding, layers and output, in the order in which they are written.

    The linears of the layers become int4. 'keep' is int4 for the output layer; for the embedding
    it is int4 where the file holds it as int4 in such groups already, and int8 elsewhere. An output
    layer that is tied to the embedding gets integers of its own. Raises `InputError` where the
    group size does not divide a tensor's input features.
    """
    if embedding == "keep":
        embedding = "int4" if _is_q4_0(model, _EMBEDDING, group_size) else "int8"
    if output_layer == "keep":
        output_layer = "int4"
    config, stored = model.config, model.tensors.stored
    tensors: list[TensorPlan] = []

    def add(part: Part, format: EmbeddingFormat, source: str, target: str) -> None:
        tensors.append(_planned(model, part, format, (source, target), group_size))

    if _EMBEDDING in stored and config.apply_embedding:
        add("embedding", embedding, _EMBEDDING, _EMBEDDING)
    for name in linear_shapes(config):
        add("layers", "int4", f"{name}.weight", f"{name}.weight")
    for name in vector_shapes(config):
        add("layers", "fp", name, name)
    output_source = _OUTPUT if _OUTPUT in stored else _EMBEDDING
    if output_source in stored and config.apply_output:
        add("output", output_layer, output_source, _OUTPUT)
    return Plan(
        tensors,
        {
            "scheme": Scheme.DYNAMIC_INT8,
            "group_size": group_size,
            "embedding": embedding,
            "output": output_layer,
        },
    )


def _planned(
    model: FloatModel, part: Part, format: EmbeddingFormat, names: tuple[str, str], group_size: int
) -> TensorPlan:
    source, target = names
    shape = model.tensors.stored[source].shape
    if format == "fp":
        return TensorPlan(part, source, "stored", (TensorSpec(target, torch.float32, shape),))
    if format == "int8":
        return integers(part, names, shape, None)
    if shape[-1] % group_size:
        fitting = [str(size) for size in GROUP_SIZES if shape[-1] % size == 0]
        raise InputError(
            f"{source} has {shape[-1]} input features, not a multiple of the group size "
            f"{group_size}; group sizes that divide it: {', '.join(fitting) or 'none'}"
        )
    method = "q4_0" if _is_q4_0(model, source, group_size) else "rtn"
    return integers(part, names, shape, group_size, method)


def _is_q4_0(model: FloatModel, source: str, group_size: int) -> bool:
    """Whether the file holds the tensor as int4 in groups of that size."""
    return group_size == Q4_0_GROUP_SIZE and source in model.int4_blocks
