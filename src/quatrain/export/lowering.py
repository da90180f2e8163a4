"""Tracing, and what both backends ask of ExecuTorch's lowering."""

import executorch.backends.vulkan.custom_ops_lib  # noqa: F401  (registers torch.ops.et_vk.*)
import torch
from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig
from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401  (torch.ops.llama.*)

from quatrain.backbone.model import Backbone
from quatrain.quiet import quiet

# The graphs are right by construction; the verifier would only re-interpret them.
EDGE_CONFIG = EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True)
EXECUTORCH_CONFIG = ExecutorchBackendConfig()


def trace(backbone: Backbone) -> torch.export.ExportedProgram:
    """The backbone's graph for 1 to max_seq_len tokens at any position."""
    config = backbone.config
    if backbone.tok_embeddings is None:
        example = torch.zeros(1, 3, config.dim)
    else:
        example = torch.zeros(1, 3, dtype=torch.long)
    tokens = torch.export.Dim("tokens", min=1, max=config.max_seq_len)
    with torch.no_grad(), quiet():
        return torch.export.export(
            backbone,
            (example, torch.zeros(1, dtype=torch.long)),
            dynamic_shapes=({1: tokens}, {}),
        )
