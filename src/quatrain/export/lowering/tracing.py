"""The graph of a backbone, as both backends lower it."""

import torch
from executorch.exir import ExecutorchBackendConfig

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
        return torch.export.export(
            backbone,
            (example, torch.zeros(1, dtype=torch.long)),
            dynamic_shapes=({1: tokens}, {}),
        )
