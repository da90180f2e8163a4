"""What becomes of each tensor of a model in floating point."""

from dataclasses import replace

import torch

from quatrain.backbone.tensor_shapes import linear_shapes
from quatrain.backbone.vector_shapes import vector_shapes
from quatrain.checkpoint.files.safetensors import TensorSpec
from quatrain.checkpoint.float_model import FloatModel
from quatrain.checkpoint.layout import EMBEDDING, OUTPUT, PER_LAYER
from quatrain.errors import InputError
from quatrain.int4 import GROUP_SIZES, XNNPACK_GROUP_SIZES, Scheme
from quatrain.quantize.plan.plan import Part, Plan, TensorPlan, integers
from quatrain.quantize.tensor_formats import EmbeddingFormat, ForBackend, OutputFormat, Rounding

_EMBEDDING, _OUTPUT = f"{EMBEDDING}.weight", f"{OUTPUT}.weight"


def plan_model(
    model: FloatModel,
    group_size: int,
    embedding: EmbeddingFormat,
    output_layer: OutputFormat,
    rounding: Rounding = "rtn",
    backend: ForBackend = "any",
) -> Plan:
    """The plan for embedding, layers and output, in the order in which they are written.

    The linears of the layers become int4. 'keep' means int4 for the output layer; for the embedding
    it means int4, or with rtn int8, unless the file already holds it as int4 in such groups. A
    table of per-layer embeddings becomes int4, unless the embedding is 'fp'. An output layer that
    is tied to the embedding gets its own integers; except with rtn they equal the embedding's if
    both are int4. Scales may be negative only for Vulkan. Raises `InputError` if the group size
    does not divide a tensor's input features.
    """
    if embedding == "keep":
        embedding = _usual_embedding(model, group_size, rounding)
    output_layer = "int4" if output_layer == "keep" else output_layer
    config, stored = model.config, model.tensors.stored
    output_source = _OUTPUT if _OUTPUT in stored else _EMBEDDING
    tied = output_source == _EMBEDDING and config.apply_output and output_layer == "int4"
    tensors: list[TensorPlan] = []

    def add(
        part: Part, format: EmbeddingFormat, source: str, target: str, method: Rounding
    ) -> None:
        planned = _planned_tensor(model, part, format, (source, target), group_size, method)
        tensors.append(replace(planned, signed_scales=backend == "vulkan"))

    if _EMBEDDING in stored and config.apply_embedding:
        add("embedding", embedding, _EMBEDDING, _EMBEDDING, rounding if tied else "rtn")
    for name in linear_shapes(config):
        in_layer = name.startswith("layers.")
        add("layers", "int4", f"{name}.weight", f"{name}.weight", rounding if in_layer else "rtn")
    if config.per_layer_dim:
        kind = "fp" if embedding == "fp" else "int4"
        add("layers", kind, f"{PER_LAYER}.weight", f"{PER_LAYER}.weight", "rtn")
    for name in vector_shapes(config):
        add("layers", "fp", name, name, rounding)
    if output_source in stored and config.apply_output:
        add("output", output_layer, output_source, _OUTPUT, rounding)
    said = {"group_size": group_size, "embedding": embedding, "output": output_layer}
    return Plan(tensors, {"scheme": Scheme.DYNAMIC_INT8, **said})


def _usual_embedding(model: FloatModel, group_size: int, rounding: Rounding) -> EmbeddingFormat:
    int4 = rounding != "rtn" or _is_int4(model, _EMBEDDING, group_size)
    return "int4" if int4 else "int8"


def _planned_tensor(
    model: FloatModel,
    part: Part,
    format: EmbeddingFormat,
    names: tuple[str, str],
    group_size: int,
    rounding: Rounding,
) -> TensorPlan:
    source, target = names
    shape = model.tensors.stored[source].shape
    if format == "fp":
        method = "distill" if rounding == "distill" and part == "layers" else "stored"
        return TensorPlan(part, source, method, (TensorSpec(target, torch.float32, shape),))
    if format == "int8":
        return integers(part, names, shape, None)
    if shape[-1] % group_size:
        fitting = [
            f"{size}" if size in XNNPACK_GROUP_SIZES else f"{size} with --backend vulkan"
            for size in GROUP_SIZES
            if shape[-1] % size == 0
        ]
        raise InputError(
            f"{source} has {shape[-1]} input features, not a multiple of the group size "
            f"{group_size}; group sizes that divide it: {', '.join(fitting) or 'none'}"
        )
    method = "int4_blocks" if _is_int4(model, source, group_size) else rounding
    return integers(part, names, shape, group_size, method)


def _is_int4(model: FloatModel, source: str, group_size: int) -> bool:
    """Whether the file holds the tensor as int4 in groups of that size, or of several such."""
    blocks = model.int4_blocks.get(source)
    return blocks is not None and blocks.group_size % group_size == 0
