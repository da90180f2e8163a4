"""A checkpoint's tensors as a backbone takes them: those that it has a place for, in its shapes."""

import re
from collections.abc import Callable, Mapping

import torch

from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.pruned_vocabulary import kept_rows
from quatrain.linear.packing import is_int4
from quatrain.transform.pre_quantization import sanitize_checkpoint_from_pre_quantization

IsInt4Table = Callable[[str, torch.Tensor], bool]  # of "tok_embeddings" or "output", its weight


def state_for(
    config: BackboneConfig,
    tensors: Mapping[str, torch.Tensor],
    embedding_input: bool,
    hidden_output: bool,
) -> dict[str, torch.Tensor]:
    """The tensors that this backbone has a place for, floating ones in float32."""
    unused = ("tok_embeddings.",) * embedding_input
    unused += ("output.", "output_bias.", "output_intermediate.") * hidden_output
    state = {}
    for name in tensors:
        if not name.startswith(unused):
            state[name] = as_float32(tensors[name])
    if not hidden_output and "output.weight" not in state:
        # Tied: the output multiplies by the embedding table.
        for part in ("weight", "scales"):
            if f"tok_embeddings.{part}" in tensors:
                state[f"output.{part}"] = as_float32(tensors[f"tok_embeddings.{part}"])
    for name in list(state):
        if name.startswith("tok_embeddings."):
            state[name] = kept_rows(state[name], config.input_prune_map, config.vocab_size)
        elif name.startswith(("output.", "output_bias.")):
            state[name] = kept_rows(state[name], config.output_prune_map, config.vocab_size)
    if config.learned_positions and "positions.weight" in state:
        state["positions.weight"] = state["positions.weight"][: config.max_seq_len]
    state = experts_apart(state)
    # Nothing else: of a matrix with one row, or a number, every dimension counts.
    columns = {name: tensor for name, tensor in state.items() if _is_column(name, tensor)}
    sanitize_checkpoint_from_pre_quantization(columns)
    flat = {name: torch.atleast_1d(column) for name, column in columns.items()}
    return {name: tensor.contiguous() for name, tensor in state.items()} | flat


def with_columns(
    state: dict[str, torch.Tensor], group_size: int, is_int4_table: IsInt4Table
) -> dict[str, torch.Tensor]:
    """Give int4 scales back the group dimension that sanitizing drops at one group a row."""
    for name, tensor in state.items():
        linear = name.removesuffix(".scales")
        if linear == name or linear == "tok_embeddings" or tensor.dim() != 1:
            continue
        weight = state[f"{linear}.weight"] if linear == "output" else None
        # One scale a row of the output layer is int8's, unless a row is one group of int4.
        if weight is None or (weight.shape[1] == group_size and is_int4_table(linear, weight)):
            state[name] = tensor.unsqueeze(1)
    return state


def is_int8_output(state: Mapping[str, torch.Tensor]) -> bool:
    """Whether the output layer is int8, which has one scale a row."""
    return "output.scales" in state and state["output.scales"].dim() == 1


def embedding_format(
    state: Mapping[str, torch.Tensor], is_int4_table: IsInt4Table
) -> tuple[int, int | None]:
    """The embedding's bit width, by the range of its values, and its group size, if any."""
    weight, scales = state["tok_embeddings.weight"], state["tok_embeddings.scales"]
    bit_width = 4 if is_int4_table("tok_embeddings", weight) else 8
    return bit_width, weight.shape[1] // scales.shape[1] if scales.dim() == 2 else None


def by_values(name: str, weight: torch.Tensor) -> bool:
    """The kind of a table follows from the range of its values."""
    return is_int4(weight)


def by_kind(kinds: Mapping[str, str]) -> IsInt4Table:
    """The kind of each table is given by `kinds`."""
    return lambda name, weight: kinds[name] == "int4"


def experts_apart(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`...experts.w1.weight` [E, N, K] as `...experts.0.w1.weight` [N, K] and so on: views."""
    apart = {}
    for name, tensor in state.items():
        before, experts, rest = name.partition(".experts.")
        if experts and not rest[0].isdigit():
            for index in range(tensor.shape[0]):
                apart[f"{before}.experts.{index}.{rest}"] = tensor[index]
        else:
            apart[name] = tensor
    return apart


def stored_name(module: str) -> str:
    """What a checkpoint calls a module of a backbone, its ".weight" left out: experts are one
    tensor there, and a rotated linear has its own inside."""
    return re.sub(r"\.experts\.\d+\.", ".experts.", module.removesuffix(".base"))


def as_float32(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor`, in float32 if it is floating."""
    return tensor.float() if tensor.is_floating_point() else tensor


def _is_column(name: str, tensor: torch.Tensor) -> bool:
    """Whether it is [N, 1], one scale or zero point a row."""
    return name.endswith((".scales", ".zeros")) and tensor.shape[1:] == (1,)
