"""What becomes of each tensor of a checkpoint that is quantized already."""

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
    embedding or output layer in floating point is rounded where `embedding` or `output_layer` says
    so; an output layer that is tied to the embedding then gets integers of its own. Raises
    `InputError` if one that is to be rounded is integers already, and for a `group_size` that is
    not the checkpoint's.
    """
    if group_size not in (None, checkpoint.group_size):
        raise InputError(
            f"--group-size {group_size}: {checkpoint.source} is already quantized, in groups of "
            f"{checkpoint.group_size}; leave out the option, or convert the floating-point model"
        )
    asked: dict[str, EmbeddingFormat] = {_EMBEDDING: embedding, _OUTPUT: output_layer}
    tensors = [
        _planned_tensor(checkpoint, name, stored, asked.get(name, "keep"))
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
    if asked in ("keep", kind):
        # Zero points are read and checked, and not written.
        spec = TensorSpec(name, stored.dtype, stored.shape)
        return TensorPlan(part, name, "stored", () if name.endswith(".zeros") else (spec,))
    if kind != "fp":
        raise InputError(
            f"{checkpoint.source}: {name} is already {kind}; leave out the option that asks for "
            f"{asked}, or convert the floating-point model"
        )
    return _rounded(checkpoint, name, name, asked)


def _part(name: str) -> Part:
    if name.startswith(EMBEDDING):
        return "embedding"
    return "output" if name.startswith(OUTPUT) else "layers"


def _untied(checkpoint: Checkpoint, format: OutputFormat) -> TensorPlan:
    """An output layer of its own, rounded from the embedding that it is tied to."""
    if checkpoint.embedding_kind != "fp" or _EMBEDDING not in checkpoint.tensors:
        raise InputError(
            f"{checkpoint.source}: its output layer is tied to the embedding, which is already "
            "quantized, so --output-layer cannot change its format; leave out --output-layer, or "
            "convert the floating-point model"
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
    return integers(_part(target), (name, target), shape, group_size)
