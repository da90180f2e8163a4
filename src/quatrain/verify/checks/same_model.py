"""Checks, before anything is computed, that a program can have been made from a checkpoint."""

from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.checkpoint.layout import EMBEDDING, OUTPUT
from quatrain.checkpoint.meta.pruned_output import with_kept_output
from quatrain.errors import InputError
from quatrain.program import Program, VulkanGraph
from quatrain.program.inspect.linears import find_linears


def require_same_model(program: Program, graph: VulkanGraph | None, checkpoint: Checkpoint) -> None:
    """Refuse, with `InputError`, a program whose vocabulary, layers or linears are of another size
    than `checkpoint`'s. `graph`: of a Vulkan program, whose linears can be seen."""
    config, stated = checkpoint.config, program.metadata
    sizes = {"get_vocab_size": ("vocabulary", config.vocab_size)}
    sizes["get_n_layers"] = ("number of layers", config.n_layers)
    for method, (what, expected) in sizes.items():
        if method in stated and int(stated[method]) != expected:
            _refuse(program, checkpoint, f"its {what} is {stated[method]}", str(expected))
    tensors = with_kept_output(checkpoint.tensors, config).stored
    for linear in find_linears(graph) if graph else ():
        shape = [linear.out_features, linear.in_features]
        stored = tensors.get(f"{linear.name}.weight")
        if stored is None and linear.name == OUTPUT:
            stored = tensors.get(f"{EMBEDDING}.weight")
        if stored is not None and len(stored.shape) == 2 and list(stored.shape) != shape:
            _refuse(program, checkpoint, f"{linear.name} is {shape}", str(list(stored.shape)))


def _refuse(program: Program, checkpoint: Checkpoint, found: str, expected: str) -> None:
    raise InputError(
        f"{program.path}: was not made from {checkpoint.source}: {found}, there {expected}; "
        "give the checkpoint that it was exported from"
    )
