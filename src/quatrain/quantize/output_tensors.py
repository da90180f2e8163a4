"""What a converted checkpoint is written from, piece by piece, each made when its turn comes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from quatrain.checkpoint import Checkpoint, FloatModel
from quatrain.checkpoint.files.lazy_tensors import StoredTensor
from quatrain.checkpoint.files.safetensors import TensorSpec
from quatrain.checkpoint.layout import EMBEDDING, OUTPUT
from quatrain.errors import InputError
from quatrain.quantize.model import QuantizeReport, quantize_tensor
from quatrain.quantize.plan import EmbeddingFormat, TensorPlan, plan
from quatrain.quantize.requantize import Requantization


@dataclass(frozen=True)
class OutputTensors:
    """Tensors that are written together: one of the source's, or the integers and scales of one.

    `make(source)` gives them in the order of `specs`; `source` is what was opened last, so that a
    piece holds on to nothing.
    """

    specs: list[TensorSpec]
    make: Callable[[Any], list[torch.Tensor]]


def tensors_of_model(
    model: FloatModel,
    group_size: int,
    embedding: EmbeddingFormat,
    output_layer: EmbeddingFormat,
    changes: Requantization,
) -> tuple[list[OutputTensors], dict[str, Any]]:
    """(a floating-point model rounded as `quantize_model` rounds it, its quantization_args)."""
    report = QuantizeReport("", "", group_size)

    def output_tensors(tensor_plan: TensorPlan) -> OutputTensors:
        def make(source: FloatModel) -> list[torch.Tensor]:
            error, tensors = quantize_tensor(source, tensor_plan, report)
            changes.note(tensor_plan.target, error)
            return list(tensors)

        return OutputTensors(tensor_plan.specs(group_size), make)

    plans, arguments = plan(model, group_size, embedding, output_layer)
    return [output_tensors(tensor_plan) for tensor_plan in plans], arguments


def tensors_of_checkpoint(
    checkpoint: Checkpoint,
    embedding: EmbeddingFormat,
    output_layer: EmbeddingFormat,
    changes: Requantization,
) -> tuple[list[OutputTensors], dict[str, Any]]:
    """(a quantized checkpoint's own tensors, its quantization_args).

    Zero points are left out: they must be zero, and are where the checkpoint was requantized.
    A table in floating point is rounded where `embedding` or `output_layer` says so; an output
    layer that is tied to it then gets integers of its own. Raises `InputError` where a table that
    is to be rounded is integers already.
    """
    kinds = {"embedding": checkpoint.embedding_kind, "output": checkpoint.output_kind}
    tables: dict[str, EmbeddingFormat] = {
        f"{EMBEDDING}.weight": embedding,
        f"{OUTPUT}.weight": output_layer,
    }
    pieces = []
    for name, stored in checkpoint.tensors.stored.items():
        asked = tables.get(name, "keep")
        kind = kinds["embedding" if name.startswith(EMBEDDING) else "output"]
        if asked in ("keep", kind):
            pieces.append(_kept(name, stored))
        elif kind == "fp":
            pieces.append(_rounded(checkpoint, name, name, asked, changes))
        else:
            raise InputError(
                f"{checkpoint.source}: {name} is {kind} already; leave out the option that asks "
                f"for {asked}, or convert the floating-point model"
            )
    if kinds["output"] == "tied" and output_layer != "keep":
        pieces.append(_untied(checkpoint, output_layer, changes))
    arguments = dict(checkpoint.params["quantization_args"])
    for part, asked in (("embedding", embedding), ("output", output_layer)):
        arguments[part] = kinds[part] if asked == "keep" else asked
    return pieces, arguments


def _kept(name: str, stored: StoredTensor) -> OutputTensors:
    def make(source: Checkpoint) -> list[torch.Tensor]:
        tensor = source.tensors[name]
        source.check_tensor(name, tensor)
        return [tensor]

    # Zeros are read and checked, and not written.
    specs = [] if name.endswith(".zeros") else [TensorSpec(name, stored.dtype, stored.shape)]
    return OutputTensors(specs, lambda source: make(source)[: len(specs)])


def _untied(
    checkpoint: Checkpoint, method: EmbeddingFormat, changes: Requantization
) -> OutputTensors:
    """An output layer of its own, rounded from the embedding that it is tied to."""
    name = f"{EMBEDDING}.weight"
    if checkpoint.embedding_kind != "fp" or name not in checkpoint.tensors:
        raise InputError(
            f"{checkpoint.source}: its output layer is tied to the embedding, which is not in "
            "floating point, so no other can be rounded from it; leave out --output-layer, or "
            "convert the floating-point model"
        )
    return _rounded(checkpoint, name, f"{OUTPUT}.weight", method, changes)


def _rounded(
    checkpoint: Checkpoint, name: str, target: str, method: EmbeddingFormat, changes: Requantization
) -> OutputTensors:
    """The checkpoint's table `name` rounded, and stored as `target`."""
    shape, group_size = checkpoint.tensors.stored[name].shape, checkpoint.group_size
    tensor_plan = TensorPlan("output", name, target, "int8" if method == "int8" else "int4", shape)
    if method == "int4" and shape[-1] % group_size:
        raise InputError(
            f"{name} has {shape[-1]} columns, not a multiple of the group size {group_size}"
        )

    def make(source: Checkpoint) -> list[torch.Tensor]:
        weight = source.tensors[name]
        try:
            size = group_size if method == "int4" else None
            return list(changes(target, weight.__getitem__, shape, size))
        except ValueError as error:
            raise InputError(f"{source.source}: {name} {error}; the file is damaged") from error

    return OutputTensors(tensor_plan.specs(group_size), make)
