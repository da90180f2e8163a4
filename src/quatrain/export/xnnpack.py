"""A backbone for ExecuTorch's CPU runtime: XNNPACK delegates for the linears.

All linears of a shape are the same XNNPACK graph with other constants. So one of each shape
is lowered, with random weights, and its delegate is copied for the others with the keys of
their own constants in it; lowering 211 linears costs what lowering 5 does.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
    XnnpackDynamicallyQuantizedPartitioner,
    XnnpackPartitioner,
)
from executorch.exir import to_edge, to_edge_transform_and_lower
from executorch.exir._serialize._named_data_store import NamedDataStore, NamedDataStoreOutput
from executorch.exir.lowered_backend_module import LoweredBackendModule
from torch import nn

from quatrain.backbone.model import Backbone
from quatrain.errors import QuatrainError
from quatrain.export.lowering import EDGE_CONFIG, EXECUTORCH_CONFIG, quiet, trace
from quatrain.export.operators import to_cpu_operators
from quatrain.linear import Int8DynActInt8WeightLinear
from quatrain.linear.int4 import Int4Linear
from quatrain.linear.packing import pack_int4
from quatrain.stages import Stages

_ALIGNMENT = 16  # bytes; XNNPACK's CONSTANT_TENSOR_ALIGNMENT in ExecuTorch

Linear = Int4Linear | Int8DynActInt8WeightLinear | nn.Linear


def write_xnnpack_program(
    backbone: Backbone, metadata: dict[str, Any], path: Path, stages: Stages
) -> None:
    """Lower every linear into a delegate, then the rest, and write; `backbone` is used up."""
    with stages("lower linears to XNNPACK"), quiet():
        _delegate_linears(backbone)
    with stages("trace"):
        to_cpu_operators(backbone)
        program = trace(backbone)
    with stages("lower the rest"), quiet():
        edge = to_edge(program, constant_methods=metadata, compile_config=EDGE_CONFIG)
        manager = edge.to_executorch(EXECUTORCH_CONFIG)
    with stages("write"), path.open("wb") as file:
        manager.write_to_file(file)


class DelegatedLinear(nn.Module):
    """A linear that is a delegate's."""

    def __init__(self, lowered: LoweredBackendModule) -> None:
        super().__init__()
        self.lowered = lowered

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lowered(x)[0]


def _delegate_linears(backbone: Backbone) -> None:
    templates: dict[tuple, _Template] = {}
    longest = backbone.config.max_seq_len
    for name, linear in list(backbone.named_modules()):
        if isinstance(linear, Linear):
            # The output layer sees the last token alone: [1, dim].
            tokens = None if name in ("output", "output_intermediate") else longest
            shape = _shape_of(linear, tokens)
            if shape not in templates:
                templates[shape] = _lower_template(linear, tokens)
            parent, _, attribute = name.rpartition(".")
            lowered = templates[shape].for_constants(_constants_of(linear))
            setattr(backbone.get_submodule(parent), attribute, DelegatedLinear(lowered))


def _shape_of(linear: Linear, tokens: int | None) -> tuple:
    """What two linears must share to be the same XNNPACK graph."""
    group = linear.groupsize if isinstance(linear, Int4Linear) else None
    has_bias = getattr(linear, "bias", None) is not None
    return type(linear), linear.out_features, linear.in_features, group, has_bias, tokens


def _delegate(
    template: LoweredBackendModule, blob: bytes, constants: NamedDataStoreOutput
) -> LoweredBackendModule:
    """`template` with another blob and constants, cheap to ask for the shape of its result.

    Each of the compiler's passes asks that of every delegate, which ExecuTorch answers by
    unpacking and interpreting the graph it was lowered from: at 211 linears, minutes.
    """
    shapes: Any = _LinearShapes(template.original_module)
    delegate = LoweredBackendModule(
        shapes, template.backend_id, blob, template.compile_specs, constants
    )
    # Passes copy graphs with all in them; nothing in this one changes.
    delegate.__deepcopy__ = lambda memo: delegate  # type: ignore[method-assign]
    return delegate


class _LinearShapes:
    """Stands for the program of a linear: its graph, and a module that gives its result's shape."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self.graph = program.graph
        results: Any = program.graph.output_node().args[0]
        self.out_features = results[0].meta["val"].shape[-1]

    def module(self) -> Callable[[torch.Tensor], list[torch.Tensor]]:
        return lambda x: [x.new_empty((*x.shape[:-1], self.out_features))]


@dataclass
class _Template:
    """A lowered linear and the keys of its constants, in the order of `_constants_of`."""

    lowered: LoweredBackendModule
    keys: list[str]

    def for_constants(self, constants: list[tuple[str, bytes]]) -> LoweredBackendModule:
        """The same delegate with other constants: (key prefix, bytes), each under its hash."""
        store = NamedDataStore()
        blob = self.lowered.processed_bytes
        for old, (prefix, data) in zip(self.keys, constants, strict=True):
            new = prefix + hashlib.sha256(data).hexdigest()
            # Keys are hexadecimal digests of one length, so the flatbuffer keeps its offsets.
            blob = blob.replace(old.encode(), new.encode())
            store.add_named_data(new, data, alignment=_ALIGNMENT)
        return _delegate(self.lowered, blob, store.get_named_data_store_output())


def _lower_template(linear: Linear, tokens: int | None) -> _Template:
    """Lower a linear like `linear` with random constants, which no two parts have in common."""
    like = _random_like(linear)
    if tokens is None:
        example, shapes = torch.zeros(1, linear.in_features), None
    else:
        example = torch.zeros(1, 3, linear.in_features)
        shapes = ({1: torch.export.Dim("tokens", min=1, max=tokens)},)
    with torch.no_grad():
        program = torch.export.export(like, (example,), dynamic_shapes=shapes)
    partitioner = (
        XnnpackPartitioner()
        if isinstance(linear, nn.Linear)
        else XnnpackDynamicallyQuantizedPartitioner()
    )
    edge = to_edge_transform_and_lower(
        program, partitioner=[partitioner], compile_config=EDGE_CONFIG
    )
    graph = edge.exported_program().graph_module
    lowered = [part for part in graph.modules() if isinstance(part, LoweredBackendModule)]
    calls = [node for node in graph.graph.nodes if node.op == "call_function"]
    keys = [prefix + hashlib.sha256(data).hexdigest() for prefix, data in _constants_of(like)]
    # One delegate call and the getitem that takes its result: nothing is left outside.
    whole = len(lowered) == 1 and len(calls) == 2
    if not whole or any(key.encode() not in lowered[0].processed_bytes for key in keys):
        raise QuatrainError(
            f"XNNPACK did not take a linear of {linear.out_features} x {linear.in_features} as "
            "one delegate with its constants; this version of executorch lowers it otherwise"
        )
    return _Template(lowered[0], keys)


def _random_like(linear: Linear) -> Linear:
    generator = torch.Generator().manual_seed(0)
    rows, columns = linear.out_features, linear.in_features
    has_bias = getattr(linear, "bias", None) is not None
    if isinstance(linear, Int4Linear):
        like = type(linear)(columns, rows, bias=has_bias, groupsize=linear.groupsize)
        like.weight.random_(-8, 8, generator=generator)
        like.scales.uniform_(0.5, 1.5, generator=generator)
    elif isinstance(linear, Int8DynActInt8WeightLinear):
        like = Int8DynActInt8WeightLinear(columns, rows)
        like.weight.random_(-128, 128, generator=generator)
        like.scales.uniform_(0.5, 1.5, generator=generator)
    else:
        like = nn.Linear(columns, rows, bias=has_bias).requires_grad_(False)
        like.weight.uniform_(-1, 1, generator=generator)
    if has_bias:
        like.bias.uniform_(-1, 1, generator=generator)  # type: ignore[union-attr]
    return like


def _constants_of(linear: Linear) -> list[tuple[str, bytes]]:
    """A linear's constants as XNNPACK's serializer stores them: (key prefix, bytes)."""
    if isinstance(linear, Int4Linear):
        # XNNPACK's group-wise kernels take bfloat16 scales.
        scales = linear.scales.to(torch.bfloat16)
        constants = [("", _bytes(pack_int4(linear.weight))), ("scale_", _bytes(scales))]
    elif isinstance(linear, Int8DynActInt8WeightLinear):
        constants = [("", _bytes(linear.weight)), ("scale_", _bytes(linear.scales))]
    else:
        constants = [("", _bytes(linear.weight))]
    bias = getattr(linear, "bias", None)
    return constants + ([("", _bytes(bias.float()))] if bias is not None else [])


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()
