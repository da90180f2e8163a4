"""A backbone for ExecuTorch's CPU runtime: XNNPACK delegates for the linears."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from executorch.exir import ExecutorchBackendConfig, to_edge

from quatrain.backbone.model import Backbone
from quatrain.export.lowering.compiler_shortcuts import compiler_shortcuts
from quatrain.export.lowering.executorch_internals import edge_config
from quatrain.export.lowering.remembered_results import results_remembered
from quatrain.export.lowering.tracing import EXECUTORCH_CONFIG, trace
from quatrain.export.template.constants import tensors_of
from quatrain.export.template.template import replace_tensor, untouched_zeros
from quatrain.export.xnnpack.delegated_linears import delegate_linears
from quatrain.export.xnnpack.delegated_parts import delegate_layers
from quatrain.export.xnnpack.embedding import to_cpu_embedding
from quatrain.export.xnnpack.ring_cache import longest_call
from quatrain.export.xnnpack.unused_patterns import without_unused_patterns
from quatrain.program import open_program, write_program
from quatrain.program.edit.shared_tables import share_tables
from quatrain.quiet import quiet
from quatrain.stages import Stages


@compiler_shortcuts()
@results_remembered()
@without_unused_patterns()
def write_xnnpack_program(
    backbone: Backbone, metadata: dict[str, Any], path: Path, stages: Stages
) -> None:
    """Lower `backbone`, whose parts are CPU operators already, layer by layer and write it: the
    long way, for any backbone."""
    with stages("lower linears to XNNPACK"):
        delegate_layers(backbone)
        delegate_linears(backbone)
    to_cpu_embedding(backbone)
    write_lowered(backbone, metadata, path, stages)
    with stages("store once what is equal"):
        program = open_program(path)
        share_tables(program)
        program.shares_delegates = True
        write_program(program, path)


@compiler_shortcuts()
@results_remembered()
@without_unused_patterns()
def write_named_program(
    backbone: Backbone, metadata: dict[str, Any], path: Path, stages: Stages
) -> None:
    """The same with the names of its tensors in place of their values.

    A delegate's constants are their names (see `delegate_linears`); those of the program itself
    are external ones, whose names ExecuTorch keeps.
    """
    with stages("lower linears to XNNPACK"):
        delegate_layers(backbone, by_name=True)
        delegate_linears(backbone, by_name=True)
    to_cpu_embedding(backbone)
    for name, tensor in tensors_of(backbone).items():
        replace_tensor(backbone, name, untouched_zeros(tensor))
    named = replace(EXECUTORCH_CONFIG, external_constants=True, emit_mutable_buffer_names=True)
    write_lowered(backbone, metadata, path, stages, named)


def write_lowered(
    backbone: Backbone,
    metadata: dict[str, Any],
    path: Path,
    stages: Stages,
    config: ExecutorchBackendConfig = EXECUTORCH_CONFIG,
) -> None:
    """Trace, lower and write `backbone`, whose linears are delegates already."""
    with stages("trace"):
        program = trace(backbone, longest_call(backbone))
    with stages("lower the rest"), quiet():
        edge = to_edge(program, constant_methods=metadata, compile_config=edge_config())
        manager = edge.to_executorch(config)
    with stages("write"), path.open("wb") as file:
        manager.write_to_file(file)
