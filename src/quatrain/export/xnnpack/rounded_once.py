"""An XNNPACK delegate that rounds what several linears take to int8 once.

ExecuTorch traces the rounding into each linear. Shared before lowering, its partitioner cuts the
graph in two; so it is shared in what it cut, before its backend writes that.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackBackend


@contextmanager
def rounded_once() -> Iterator[None]:
    """Lower within it: of equal operators on equal values XNNPACK's backend gets one."""
    preprocess = XnnpackBackend.preprocess

    def shared(edge_program: torch.export.ExportedProgram, compile_specs: list[Any]) -> Any:
        _share(edge_program.graph)
        return preprocess(edge_program, compile_specs)

    XnnpackBackend.preprocess = staticmethod(shared)
    try:
        yield
    finally:
        XnnpackBackend.preprocess = staticmethod(preprocess)


def _share(graph: torch.fx.Graph) -> None:
    first: dict[str, torch.fx.Node] = {}
    for node in graph.nodes:
        same = first.setdefault(str((node.op, node.target, node.args, node.kwargs)), node)
        if same is not node:
            node.replace_all_uses_with(same)
            graph.erase_node(node)
