"""Checkpoints without weights: every tensor has its shape and dtype, but no data."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from quatrain.checkpoint.checkpoint import Checkpoint, checked_checkpoint
from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.float_model import FloatModel
from quatrain.checkpoint.layout import EMBEDDING, OUTPUT
from quatrain.quantize.plan.plan import Plan

_Shapes = Mapping[str, tuple[tuple[int, ...], torch.dtype]]


def weightless_checkpoint(opened: Checkpoint) -> Checkpoint:
    """`opened` with tensors on torch's meta device, floating-point ones in float32.

    Its parameters state how its tables are stored, because there are no values to infer it from.
    Zero points are left out. If the first and last rows of the output layer equal the embedding's,
    as `quantize` stores a tied one, both are the same tensor, because a program stores these bytes
    once.
    """
    shapes = {name: (t.shape, t.dtype) for name, t in opened.tensors.stored.items()}
    kinds = {"embedding": opened.embedding_kind, "output": opened.output_kind}
    arguments = {**opened.params["quantization_args"], **kinds}
    params = {**opened.params, "quantization_args": arguments}
    return replace(opened, tensors=_weightless(shapes, _same_tables(opened)), params=params)


def planned_checkpoint(model: FloatModel, plan: Plan, source: Path) -> Checkpoint:
    """The checkpoint that `plan` would make of `model`, without weights."""
    params: dict[str, Any] = {**model.params, "quantization_args": plan.quantization_args}
    shapes = {spec.name: (spec.shape, spec.dtype) for spec in plan.specs}
    made_of = {tensor.target: tensor.source for tensor in plan.tensors}
    arguments, output = plan.quantization_args, made_of.get(f"{OUTPUT}.weight")
    same = output == made_of.get(f"{EMBEDDING}.weight")
    same = same and arguments["embedding"] == arguments["output"]
    return checked_checkpoint(_weightless(shapes, same), params, model.config, source, source)


def _same_tables(opened: Checkpoint) -> bool:
    pairs = [(f"{table}.weight", f"{table}.scales") for table in (EMBEDDING, OUTPUT)]
    stored = opened.tensors.stored
    if any(name not in stored for pair in pairs for name in pair):
        return False
    if any(stored[a].shape != stored[b].shape for a, b in zip(*pairs, strict=True)):
        return False
    ends = [[opened.tensors[name][[0, -1]] for name in pair] for pair in pairs]
    return all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def _weightless(shapes: _Shapes, same_tables: bool) -> LazyTensors:
    stored: dict[str, StoredTensor] = {}
    for name, (shape, dtype) in shapes.items():
        if name.endswith(".zeros"):
            continue
        kept = torch.float32 if dtype.is_floating_point else dtype
        # One tensor for each name: what is read twice, as a tied table is, shares its storage.
        tensor = torch.empty(shape, dtype=kept, device="meta")
        stored[name] = StoredTensor(shape, kept, lambda tensor=tensor: tensor)
    if same_tables:
        for part in ("weight", "scales"):
            stored[f"{OUTPUT}.{part}"] = stored[f"{EMBEDDING}.{part}"]
    return LazyTensors(stored)
