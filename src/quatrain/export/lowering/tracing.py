"""Traces the graph of a backbone for both backends."""

import torch
from executorch.exir import ExecutorchBackendConfig
from torch.export.graph_signature import InputKind

from quatrain.backbone.model import Backbone
from quatrain.export.lowering.executorch_internals import shapes_of_vulkan_operators
from quatrain.quiet import quiet

EXECUTORCH_CONFIG = ExecutorchBackendConfig()


def trace(backbone: Backbone, longest_call: int) -> torch.export.ExportedProgram:
    """The backbone's graph for 1 to `longest_call` tokens at any position."""
    config = backbone.config
    if backbone.tok_embeddings is None:
        example = torch.zeros(1, 3, config.dim)
    else:
        example = torch.zeros(1, 3, dtype=torch.long)
    tokens = torch.export.Dim("tokens", min=1, max=longest_call)
    with torch.no_grad(), quiet(), shapes_of_vulkan_operators():
        traced = torch.export.export(
            backbone,
            (example, torch.zeros(1, dtype=torch.long)),
            dynamic_shapes=({1: tokens}, {}),
        )
    _remove_unread_tensors(traced)
    return traced


def _remove_unread_tensors(traced: torch.export.ExportedProgram) -> None:
    """Remove unread tensors: further names of shared tensors, which ExecuTorch would store again
    outside of the delegate, and tables of positions whose rows no layer uses."""
    graph, signature = traced.graph_module.graph, traced.graph_signature
    graph.eliminate_dead_code()
    kept = []
    for spec, node in zip(signature.input_specs, graph.find_nodes(op="placeholder"), strict=True):
        if spec.kind == InputKind.USER_INPUT or node.users:
            kept.append(spec)
        else:
            traced.state_dict.pop(str(spec.target), None)
            graph.erase_node(node)
    signature.input_specs[:] = kept
    traced.graph_module.recompile()
