"""An XNNPACK delegate that rounds what several linears take to int8 once.

ExecuTorch traces the rounding into each linear. Shared before lowering, its partitioner cuts the
graph in two; so what it cut is shared, and handed to its backend anew.
"""

import torch
from executorch.backends.xnnpack.xnnpack_preprocess import XnnpackBackend

from quatrain.export.executorch_internals import LoweredBackendModule


def rounded_once(lowered: LoweredBackendModule) -> bytes:
    """The bytes of that XNNPACK delegate where equal operators on equal values are one."""
    program = lowered.original_module
    first: dict[str, torch.fx.Node] = {}
    for node in program.graph.nodes:
        same = first.setdefault(str((node.op, node.target, node.args, node.kwargs)), node)
        if same is not node:
            node.replace_all_uses_with(same)
            program.graph.erase_node(node)
    return XnnpackBackend.preprocess(program, lowered.compile_specs).processed_bytes
