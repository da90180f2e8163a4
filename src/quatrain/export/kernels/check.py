"""Checks that the finished program has the planned kernels, so that no fallback is silent."""

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from quatrain.backbone.layers.alt_up import AltUp
from quatrain.backbone.layers.latent_attention import HeadMatrices
from quatrain.errors import QuatrainError
from quatrain.export.kernels.assignment import LinearRow
from quatrain.export.options import ExportOptions
from quatrain.export.xnnpack.delegate_keys import SCALES_PREFIX, keys_in
from quatrain.export.xnnpack.joined_linears import GATE_AND_UP, QUERIES_KEYS_VALUES
from quatrain.export.xnnpack.layer_parts import PartedAttention, PartedFeedForward
from quatrain.linear.int4 import Int4Linear
from quatrain.linear.packing import pack_int4_for_vulkan
from quatrain.program import Program, open_program
from quatrain.program.inspect.linears import Linear, find_linears
from quatrain.program.plan.row_lookup import work_beside_delegate
from quatrain.program.vulkan.linear_kernels import INT4_LINEARS
from quatrain.program.xnnpack_delegate import XNNPACK_BACKEND

_TABLE_FOR_EACH_LAYER = "quantized_decomposed.embedding_4bit.out"  # `vulkan/cpu_table.py`


def check_program(
    path: Path, rows: list[LinearRow], options: ExportOptions, backbone: nn.Module
) -> None:
    """Read the program at `path` and find each linear of `rows` in the kernel it names.

    `backbone` is the source of a Vulkan program. Raises `QuatrainError` naming the first linear
    that is elsewhere, and any operator that was left outside the Vulkan delegate.
    """
    program = open_program(path)
    if options.backend == "vulkan":
        _check_vulkan(program, rows, backbone)
    else:
        _check_xnnpack(program, rows, backbone)


def _check_vulkan(program: Program, rows: list[LinearRow], backbone: nn.Module) -> None:
    beside = set(work_beside_delegate(program))
    outside = sorted(beside | set(program.calls_outside_delegates()) - {_TABLE_FOR_EACH_LAYER})
    if outside or len(program.delegates) != 1:
        raise QuatrainError(
            f"the backbone became {len(program.delegates)} Vulkan delegates with "
            f"{', '.join(outside) or 'nothing'} between them, expected one delegate. "
            "This is a defect of Quatrain or a change in executorch; please report it."
        )
    located_linears(program, rows, backbone)


def located_linears(
    program: Program, rows: list[LinearRow], backbone: nn.Module
) -> dict[str, Linear]:
    """The linear of a Vulkan `program` that each of `rows` is, by its name in `backbone`.

    Raises `QuatrainError` if one is in another kernel or not there, or one is left over.
    """
    linears = _of_weights(find_linears(program.vulkan), len(rows))
    named = {linear.name: linear for linear in linears}
    if len(named) == len(linears) == len(rows) and all(
        row.name in named and _is_kernel_of(named[row.name], row) for row in rows
    ):
        return named
    # Where layers are not a plain Llama's, names read off the graph are guesses; weights are not.
    found = {}
    for row in rows:
        weights = _stored_weights(backbone.get_submodule(row.name))
        for linear in linears:
            if _is_kernel_of(linear, row) and weights in (None, linear.weights_key):
                linears.remove(linear)
                found[row.name] = linear
                break
        else:
            raise QuatrainError(
                f"{row.name}: no {row.kernel} ({row.out_features}, {row.in_features}) of the "
                "program has its weights"
            )
    if linears:
        extra = sorted(linear.name for linear in linears)
        raise QuatrainError(f"the program has linears that the backbone does not have: {extra}")
    return found


def _of_weights(linears: list[Linear], count: int) -> list[Linear]:
    """`linears`; where there are more than `count`, of those in floating point that have the same
    weights the first: what is computed twice, as the router of alternating updates is."""
    if len(linears) <= count:
        return linears
    first: dict[str | None, Linear] = {}
    for linear in linears:
        first.setdefault(linear.weights_key, linear)
    return [
        linear
        for linear in linears
        if linear.kernel in INT4_LINEARS or first[linear.weights_key] is linear
    ]


def _is_kernel_of(linear: Linear, row: LinearRow) -> bool:
    shape = (linear.out_features, linear.in_features)
    return linear.kernel == row.kernel and shape == (row.out_features, row.in_features)


def _stored_weights(part: nn.Module) -> str | None:
    """The key under which a program stores an int4 linear's weights, the SHA-256 of their packed
    bytes; None for a floating-point one, whose layout is the lowering's choice."""
    if isinstance(part, Int4Linear):
        packed = pack_int4_for_vulkan(part.weight)
    else:
        packed = dict(part.named_buffers()).get("packed")
    if packed is None:
        return None
    return hashlib.sha256(packed.contiguous().numpy().tobytes()).hexdigest()


def _check_xnnpack(program: Program, rows: list[LinearRow], backbone: nn.Module) -> None:
    """Every linear's weights and scales are some XNNPACK delegate's, its own or those of the ones
    that it is joined with."""
    others = {delegate.backend for delegate in program.delegates} - {XNNPACK_BACKEND}
    keys = [key for delegate in program.delegates for key in keys_in(bytes(delegate.blob))]
    found = Counter(len(program.named_bytes(key)) for key in keys)
    scales = sum(key.startswith(SCALES_PREFIX) for key in keys)
    modules = dict(backbone.named_modules())
    rows = _rows_of_joined_linears(rows, modules)
    if _missing(rows, found):
        rows = _distinct_rows(rows, modules)
    missing = _missing(rows, found)
    quantized = [row for row in rows if row.kernel != "xnnpack.f32"]
    if others or missing or scales != len(quantized):
        raise QuatrainError(
            f"{len(rows)} linears, {len(quantized)} of them quantized, became {len(keys)} "
            f"constants of delegates, {scales} of them scales, without weights of "
            f"{sorted(missing)} bytes, of XnnpackBackend and {sorted(others)}; expected the "
            "weights and scales of each in an XnnpackBackend delegate"
        )
    by_parts = any(getattr(part, "changes_scores", False) for part in backbone.modules())
    streams = any(isinstance(part, AltUp) for part in backbone.modules())
    latent = any(isinstance(part, HeadMatrices) for part in backbone.modules())
    # Attention with a soft cap or sinks, the prediction of streams and the matrices of single heads
    # have no operator of their own, so their matrix products remain.
    remaining = ("aten::bmm.out", "aten.bmm.out") if by_parts or streams or latent else ()
    products = [
        step.target
        for step in program.methods["forward"].instructions
        if step.kind == "kernel"
        and "mm." in str(step.target).split("::")[-1]
        and step.target not in remaining
    ]
    if products:
        raise QuatrainError(f"matrix products were left outside the delegates: {products}")


def _missing(rows: list[LinearRow], found: Counter[int]) -> Counter[int]:
    """How many weights of which bytes are not `found`."""
    return Counter(map(_weight_bytes, rows)) - found


def _distinct_rows(rows: list[LinearRow], modules: dict[str, nn.Module]) -> list[LinearRow]:
    """`rows` without those of linears with the delegate of an earlier one: they have the same
    constants, as the values of Gemma 4 whose keys they are."""
    found = {}
    for row in rows:
        # Of a `DelegatedLinear`, whose own module would import the compiler.
        lowered: Any = getattr(modules.get(row.name), "lowered", None)
        found.setdefault(row.name if lowered is None else bytes(lowered.processed_bytes), row)
    return list(found.values())


def _rows_of_joined_linears(
    rows: list[LinearRow], modules: dict[str, nn.Module]
) -> list[LinearRow]:
    """`rows` where those of a layer's that are lowered as one are one."""
    found: dict[str, LinearRow] = {}
    for row in rows:
        path, _, own = row.name.rpartition(".")
        name = f"{path}.{'+'.join(_joined_with(own, modules.get(path)))}"
        before = found[name].out_features if name in found else 0
        found[name] = replace(row, name=name, out_features=before + row.out_features)
    return list(found.values())


def _joined_with(own: str, parent: nn.Module | None) -> tuple[str, ...]:
    """The names of the linears of `parent` with which its linear `own` is lowered, itself too."""
    for names in (QUERIES_KEYS_VALUES, GATE_AND_UP):
        is_parted = isinstance(parent, PartedAttention | PartedFeedForward)
        if own in names and (is_parted or hasattr(parent, "+".join(names))):
            return names
    return (own,)


def _weight_bytes(row: LinearRow) -> int:
    """What XNNPACK's weight of a linear takes."""
    values = row.out_features * row.in_features
    return {"xnnpack.qd8_f32_qb4w": values // 2, "xnnpack.qd8_f32_qc8w": values}.get(
        row.kernel, 4 * values
    )
