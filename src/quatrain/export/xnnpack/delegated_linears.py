"""A backbone's linears as XNNPACK delegates.

All linears of a shape are the same XNNPACK graph with other constants. So one of each shape
is lowered, with random weights, and its delegate is copied for the others with the keys of
their own constants in it; lowering 211 linears costs what lowering 5 does.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
    XnnpackDynamicallyQuantizedPartitioner,
    XnnpackPartitioner,
)
from executorch.exir import to_edge_transform_and_lower
from executorch.exir._serialize._named_data_store import NamedDataStore, NamedDataStoreOutput
from executorch.exir.lowered_backend_module import LoweredBackendModule
from torch import nn

from quatrain.backbone.model import Backbone
from quatrain.errors import QuatrainError
from quatrain.export.constants import xnnpack_bytes
from quatrain.export.lowering import EDGE_CONFIG
from quatrain.linear import Int8DynActInt8WeightLinear
from quatrain.linear.int4 import Int4Linear
from quatrain.quiet import quiet

_ALIGNMENT = 16  # bytes; XNNPACK's CONSTANT_TENSOR_ALIGNMENT in ExecuTorch

Linear = Int4Linear | Int8DynActInt8WeightLinear | nn.Linear


class DelegatedLinear(nn.Module):
    """A linear that is a delegate's."""

    def __init__(self, lowered: LoweredBackendModule) -> None:
        super().__init__()
        self.lowered = lowered

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lowered(x)[0]


class Shape(NamedTuple):
    """What two linears must share to be the same XNNPACK graph."""

    kind: type[nn.Module]
    rows: int
    columns: int
    group: int | None
    has_bias: bool
    tokens: int | None  # at most; None: a single row [1, columns]


def delegate_linears(backbone: Backbone, by_name: bool = False) -> None:
    """Replace, in place, every linear by its delegate.

    With `by_name` a delegate holds, in place of each constant, the constant's name as
    `export.constants` has it, such as `packed:layers.0.attention.wq.weight`.
    """
    longest = backbone.config.max_seq_len
    for name, linear in list(backbone.named_modules()):
        if isinstance(linear, Linear):
            # The output layer sees the last token alone: [1, dim].
            tokens = None if name in ("output", "output_intermediate") else longest
            template = _lowered(_shape_of(linear, tokens))
            constants = _names_of(linear, name) if by_name else _constants_of(linear)
            parent, _, attribute = name.rpartition(".")
            delegated = DelegatedLinear(template.for_constants(constants))
            setattr(backbone.get_submodule(parent), attribute, delegated)


def _shape_of(linear: Linear, tokens: int | None) -> Shape:
    group = linear.groupsize if isinstance(linear, Int4Linear) else None
    has_bias = getattr(linear, "bias", None) is not None
    return Shape(type(linear), linear.out_features, linear.in_features, group, has_bias, tokens)


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
    """A lowered linear and the keys of its constants, in the order of `_parts`."""

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


@cache
def _lowered(shape: Shape) -> _Template:
    """Lower a linear of that shape with random constants, which no two parts have in common."""
    like = _random_linear(shape)
    # XNNPACK's graph has the most tokens in it and takes fewer too: the same bytes as for a
    # dynamic number, without the symbols that make lowering half as long again.
    tokens = () if shape.tokens is None else (shape.tokens,)
    example = torch.empty(1, *tokens, shape.columns)  # which nobody reads
    partitioner = (
        XnnpackPartitioner()
        if isinstance(like, nn.Linear)
        else XnnpackDynamicallyQuantizedPartitioner()
    )
    with torch.no_grad(), quiet():
        program = torch.export.export(like, (example,))
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
            f"XNNPACK did not take a linear of {shape.rows} x {shape.columns} as one delegate "
            "with its constants; this version of executorch lowers it otherwise"
        )
    return _Template(lowered[0], keys)


def _random_linear(shape: Shape) -> Linear:
    generator = torch.Generator().manual_seed(0)
    if issubclass(shape.kind, Int4Linear):
        like = shape.kind(
            shape.columns, shape.rows, bias=shape.has_bias, groupsize=shape.group or 0
        )
        like.weight.random_(-8, 8, generator=generator)
        like.scales.uniform_(0.5, 1.5, generator=generator)
    elif issubclass(shape.kind, Int8DynActInt8WeightLinear):
        like = Int8DynActInt8WeightLinear(shape.columns, shape.rows)
        like.weight.random_(-128, 128, generator=generator)
        like.scales.uniform_(0.5, 1.5, generator=generator)
    else:
        like = nn.Linear(shape.columns, shape.rows, bias=shape.has_bias).requires_grad_(False)
        like.weight.uniform_(-1, 1, generator=generator)
    if shape.has_bias:
        like.bias.uniform_(-1, 1, generator=generator)  # type: ignore[union-attr]
    return like


def _parts(linear: Linear) -> list[tuple[str, str, str]]:
    """What XNNPACK's serializer stores of a linear: (key prefix, form, part)."""
    if isinstance(linear, Int4Linear):
        # XNNPACK's group-wise kernels take bfloat16 scales.
        parts = [("", "packed", "weight"), ("scale_", "bfloat16", "scales")]
    elif isinstance(linear, Int8DynActInt8WeightLinear):
        parts = [("", "plain", "weight"), ("scale_", "plain", "scales")]
    else:
        parts = [("", "plain", "weight")]
    has_bias = getattr(linear, "bias", None) is not None
    return parts + ([("", "float32", "bias")] if has_bias else [])


def _names_of(linear: Linear, name: str) -> list[tuple[str, bytes]]:
    """The names of the constants of the linear `name`: (key prefix, name)."""
    return [(prefix, f"{form}:{name}.{part}".encode()) for prefix, form, part in _parts(linear)]


def _constants_of(linear: Linear) -> list[tuple[str, bytes]]:
    """A linear's constants: (key prefix, bytes)."""
    return [
        (prefix, xnnpack_bytes(form, getattr(linear, part)))
        for prefix, form, part in _parts(linear)
    ]
