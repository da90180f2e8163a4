"""What becomes of each tensor of a checkpoint that is quantized already."""

import torch

from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.checkpoint.files.lazy_tensors import StoredTensor
from quatrain.checkpoint.files.safetensors import TensorSpec
from quatrain.checkpoint.layout import EMBEDDING, OUTPUT
from quatrain.errors import InputError
from quatrain.quantize.plan.plan import Part, Plan, TensorPlan, integers
from quatrain.quantize.tensor_formats import EmbeddingFormat, OutputFormat

_EMBEDDING, _OUTPUT = f"{EMBEDDING}.weight", f"{OUTPUT}.weight"


def plan_checkpoint(
    checkpoint: Checkpoint,
    group_size: int | None,
    embedding: EmbeddingFormat,
    output_layer: OutputFormat,
) -> Plan:
    """The plan that keeps a quantized checkpoint's own tensors, in their order.

    Zero points are left out: they must be zero, and are where the checkpoint was requantized. An
    embedding or output layer in floating point, or in int8 for int4, is rounded where `embedding`
    or `output_layer` says so; an output layer that is tied to the embedding then gets integers of
    its own. Raises `InputError` for other changes of a quantized table, and for a `group_size` that
    is not the checkpoint's.
    """
    if group_size not in (None, checkpoint.group_size):
        raise InputError(
            f"--group-size {group_size}: {checkpoint.source} is already quantized, in groups of "
            f"{checkpoint.group_size}; leave out the option, or convert the floating-point model"
        )
    asked: dict[Part, EmbeddingFormat] = {"embedding": embedding, "output": output_layer}
    tensors = [
        _planned_tensor(checkpoint, name, stored, asked.get(_part(name), "keep"))
        for name, stored in checkpoint.tensors.stored.items()
    ]
    if checkpoint.output_kind == "tied" and output_layer != "keep":
        tensors.append(_untied(checkpoint, output_layer))
    arguments = dict(checkpoint.params["quantization_args"])
    arguments["embedding"] = checkpoint.embedding_kind if embedding == "keep" else embedding
    arguments["output"] = checkpoint.output_kind if output_layer == "keep" else output_layer
    return Plan(tensors, arguments)


def _planned_tensor(
    checkpoint: Checkpoint, name: str, stored: StoredTensor, asked: EmbeddingFormat
) -> TensorPlan:
    part = _part(name)
    kind = checkpoint.embedding_kind if part == "embedding" else checkpoint.output_kind
    changes = asked not in ("keep", kind)
    if not changes or name not in (_EMBEDDING, _OUTPUT):
        # Zero points are read and checked, and not written, as are scales that get others.
        unwritten = (".zeros", ".scales") if changes else (".zeros",)
        spec = TensorSpec(name, stored.dtype, stored.shape)
        return TensorPlan(part, name, "stored", () if name.endswith(unwritten) else (spec,))
    if not _can_become(kind, asked):
        raise InputError(
            f"{checkpoint.source}: {name} is already {kind}; leave out the option that asks for "
            f"{asked}, or convert the floating-point model"
        )
    return _rounded(checkpoint, name, name, asked)


def _can_become(kind: str, asked: EmbeddingFormat) -> bool:
    """Whether rounding a table of that `kind` again makes it what is `asked`: int8 loses next to
    nothing that int4 would keep."""
    return kind == "fp" or (kind, asked) == ("int8", "int4")


def _part(name: str) -> Part:
    if name.startswith(EMBEDDING):
        return "embedding"
    return "output" if name.startswith(OUTPUT) else "layers"


def _untied(checkpoint: Checkpoint, format: OutputFormat) -> TensorPlan:
    """An output layer of its own, rounded from the embedding that it is tied to."""
    kind = checkpoint.embedding_kind
    if not _can_become(kind, format) or _EMBEDDING not in checkpoint.tensors:
        raise InputError(
            f"{checkpoint.source}: its output layer is tied to the embedding, which is already "
            f"{kind}, so --output-layer {format} cannot change its format; leave out "
            "--output-layer, or convert the floating-point model"
        )
    return _rounded(checkpoint, _EMBEDDING, _OUTPUT, format)


def _rounded(checkpoint: Checkpoint, name: str, target: str, format: EmbeddingFormat) -> TensorPlan:
    """The checkpoint's embedding or output layer `name` rounded, and stored as `target`."""
    shape = checkpoint.tensors.stored[name].shape
    group_size = checkpoint.group_size if format == "int4" else None
    if group_size and shape[-1] % group_size:
        raise InputError(
            f"{checkpoint.source}: {name} has {shape[-1]} columns, expected a multiple of the "
            f"group size {group_size} for int4; ask for int8, or leave out the option"
        )
    is_int8 = checkpoint.tensors.stored[name].dtype == torch.int8
    method = "int8_table" if is_int8 else "rtn"
    return integers(_part(target), (name, target), shape, group_size, method)
